"""What an operator sees: status, a second `up`, a copy of the home, and folders that are no home."""

from __future__ import annotations

import fcntl
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.backing.ports import free_port
from penstock.backing.process import ManagedProcess
from penstock.backing.records import lock_path
from penstock.cli.platform import start_detached
from tests.e2e.conftest import PENSTOCK, Platform


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that these tests may harm; each leaves it ready."""
    home = tmp_path_factory.mktemp("operate") / "home"
    platform = Platform(home, f"http://127.0.0.1:{free_port()}", "")
    up(platform)
    yield platform
    said(platform, "down")


def said(platform: Platform, *arguments: str, code: int = 0) -> str:
    """All that a command printed; fails unless it exits with `code`."""
    done = subprocess.run(
        [*PENSTOCK, *arguments], env=platform.environment, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def up(platform: Platform) -> str:
    return said(platform, "up", "--port", platform.url.rpartition(":")[2], "--detach")


def process(platform: Platform, name: str) -> ManagedProcess:
    found = ManagedProcess.adopt(platform.home, name)
    assert found is not None
    return found


@contextmanager
def stopped(processes: Sequence[ManagedProcess]) -> Iterator[None]:
    """Hung, as far as anybody can see."""
    for running in processes:
        running.identity.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for running in processes:
            running.identity.signal(signal.SIGCONT)


def until_ready(platform: Platform) -> None:
    deadline = time.monotonic() + 60
    ready = platform.home / "run" / "platform.ready"  # the supervisor watches over all
    while (
        not ready.exists()
        or subprocess.run([*PENSTOCK, "status"], env=platform.environment, capture_output=True, check=False).returncode
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_status_names_what_does_not_answer(own: Platform) -> None:
    assert f"{own.url}  ready" in said(own, "status")
    hung = {name: process(own, name) for name in ("services", "nats", "mongodb", "envoy")}
    with stopped(list(hung.values())), ThreadPoolExecutor(2) as both:
        told, again = both.map(lambda command: said(own, command, code=3), ("status", "up"))
    assert f"{own.url}  not ready" in told
    for name, of in hung.items():
        assert f"{name}: process {of.identity.pid} does not answer" in told
        assert f"{name}: process" in again
    until_ready(own)


def test_without_a_supervisor_the_platform_is_not_ready(own: Platform) -> None:
    envoy = process(own, "envoy").identity
    for name in ("supervisor", "services"):
        killed = process(own, name)
        killed.kill()
    told = said(own, "status", code=3)
    assert f"no supervisor runs: run `penstock up --home {own.home}`" in told
    assert "services: not running" in told
    with lock_path(own.home, "services").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as if some services ran that nobody knows: others cannot start
        said(own, "up", "--detach", code=2)
    assert process(own, "envoy").identity == envoy  # a start that fails stops nothing that served before
    assert f"ready {own.url}" in up(own)
    assert process(own, "envoy").identity == envoy
    until_ready(own)


def test_a_second_up_starts_nothing(own: Platform) -> None:
    before = process(own, "supervisor").identity
    for more in ((), ("--detach",)):
        assert f"already ready at {own.url}" in said(own, "up", *more)
    assert own.url in said(own, "up", "--port", str(free_port()), "--detach", code=2)
    assert (own.home / "run" / "platform.ready").exists()
    assert process(own, "supervisor").identity == before


def test_a_supervisor_that_was_killed_a_moment_ago_is_no_reason_to_start_none(own: Platform) -> None:
    """Its process is there for some milliseconds more."""
    port = int(own.url.rpartition(":")[2])
    for _ in range(3):
        before = process(own, "supervisor").identity
        before.signal(signal.SIGKILL)
        assert start_detached(own.home, port) == own.url
        assert process(own, "supervisor").identity != before
    until_ready(own)


def test_services_whose_port_was_taken_meanwhile_are_found_where_they_are(own: Platform) -> None:
    before = process(own, "services")
    with socket.socket() as taken:
        with stopped([process(own, "supervisor")]):
            before.kill()
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", int(before.facts["port"])))
            taken.listen()
        until_ready(own)
        assert process(own, "services").facts["port"] != before.facts["port"]
        said(own, "dataset", "list")


def test_an_up_while_the_platform_stops_starts_it_again(own: Platform) -> None:
    before = process(own, "supervisor").identity
    before.signal(signal.SIGTERM)
    up(own)
    assert process(own, "supervisor").identity != before
    until_ready(own)


def test_figures_stay_where_they_are(own: Platform) -> None:
    before = process(own, "services")
    assert f"127.0.0.1:{before.facts['metrics_port']}/metrics" in said(own, "status")
    before.kill()
    until_ready(own)
    after = process(own, "services")
    assert (after.identity != before.identity, after.facts) == (True, before.facts)


def test_a_copy_of_a_home_is_no_running_platform(own: Platform, tmp_path: Path) -> None:
    copy = Platform(tmp_path / "copy", own.url, "")
    until_ready(own)
    for _ in range(5):  # of files that are there for a moment only
        if not subprocess.run(["cp", "-a", f"{own.home}/.", copy.home], capture_output=True, check=False).returncode:
            break
    else:
        raise AssertionError("the home could not be copied")
    assert "running" not in said(copy, "status", code=3).replace("not running", "")
    assert "in use" in said(copy, "up", "--detach", code=2)
    said(copy, "down")
    assert f"{own.url}  ready" in said(own, "status")


def test_a_home_that_was_moved_runs_on(own: Platform) -> None:
    moved = Platform(own.home.with_name("moved"), own.url, "")
    own.home.rename(moved.home)
    try:
        assert f"{own.url}  ready" in said(moved, "status")
    finally:
        moved.home.rename(own.home)


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "letter").touch()
    documents = Platform(folder, f"http://127.0.0.1:{free_port()}", "")
    try:
        assert "holds something else" in said(documents, "up", "--detach", code=2)
        assert "holds something else" in said(documents, "up", code=2)
        said(documents, "status", code=3)
    finally:
        said(documents, "down")
    assert [path.name for path in folder.iterdir()] == ["letter"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_home_that_cannot_be_written_to_is_a_clear_error() -> None:
    nowhere = Platform(Path("/sys/kernel/penstock"), "", "")
    for more in ((), ("--detach",)):
        assert "must be a folder that you can write to" in said(nowhere, "up", *more, code=2)


def test_a_platform_in_the_foreground_is_supervised_whatever_becomes_of_its_log(tmp_path: Path) -> None:
    own = Platform(tmp_path / "it's here", f"http://127.0.0.1:{free_port()}", "")
    arguments = [sys.executable, "-m", "penstock.cli", "up", "--port", own.url.rpartition(":")[2]]
    with Path("/dev/full").open("w") as full:
        foreground = subprocess.Popen(arguments, env=own.environment, stdout=subprocess.DEVNULL, stderr=full)
    try:
        until_ready(own)
        for _ in range(2):
            process(own, "envoy").kill()
            until_ready(own)
        said(own, "down")
        assert foreground.wait(60) == 0
        assert "running" not in said(own, "status", code=3)
    finally:
        foreground.kill()
        foreground.wait()
        said(own, "down")


def test_how_to_find_another_home_can_be_pasted_into_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock.cli.platform import _say_ready

    home = tmp_path / "it's here"
    _say_ready(home, "http://127.0.0.1:1", "", "table")
    line = capsys.readouterr().out.splitlines()[0].partition(": ")[2]
    printed = subprocess.run(["sh", "-c", f'{line}; printf %s "$PENSTOCK_HOME"'], capture_output=True, text=True)
    assert printed.stdout == str(home)
