"""Managed processes: whoever comes next finds them, and nothing else is ever touched."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.backing import records
from penstock.backing.identity import Identity, boot_id
from penstock.backing.process import ManagedProcess, Program
from penstock.backing.records import log_path, read_record, record_path
from penstock.backing.supervisor import Backoff, Supervisor
from penstock.errors import FailedPrecondition, Unavailable
from tests.integration.backing.waiting import until

SLEEPER = Program("sleeper", ["/bin/sleep", "600"], facts={"port": 1})


@pytest.fixture(autouse=True)
def _nothing_left(home: Path) -> Iterator[None]:
    yield
    for record in (home / "run").glob("*.json"):
        found = ManagedProcess.adopt(home, record.stem)
        if found is not None:
            found.kill()


def test_a_process_outlives_its_parent_and_is_adopted(home: Path) -> None:
    parent = f"""
        from pathlib import Path
        from penstock.backing.process import ManagedProcess, Program
        ManagedProcess.start(Path({str(home)!r}), Program("sleeper", ["/bin/sleep", "600"], facts={{"port": 7}}))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(parent)], check=True)
    adopted = ManagedProcess.adopt(home, "sleeper")
    assert adopted is not None
    assert adopted.facts == {"port": 7}
    assert os.getsid(adopted.identity.pid) == adopted.identity.pid
    adopted.stop()
    assert not adopted.alive()
    assert ManagedProcess.adopt(home, "sleeper") is None


def test_an_attached_process_ends_with_its_parent(home: Path) -> None:
    parent = f"""
        import os, signal
        from pathlib import Path
        from penstock.backing.process import ManagedProcess, Program
        ManagedProcess.start(Path({str(home)!r}), Program("sleeper", ["/bin/sleep", "600"]), attached=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(parent)], check=False)
    found = read_record(home, "sleeper")
    assert found is not None
    assert found[0].wait(2)


@pytest.mark.parametrize("change", [{"started": 1}, {"boot_id": "of another machine"}])
def test_a_process_that_took_over_the_pid_is_neither_adopted_nor_signalled(
    home: Path, change: dict[str, str | int]
) -> None:
    process = ManagedProcess.start(home, SLEEPER)
    data = json.loads(record_path(home, "sleeper").read_text())
    stale = Identity(**{**{key: data[key] for key in ("pid", "started", "boot_id")}, "marker": "0" * 32, **change})
    assert not stale.alive()
    assert not stale.signal(signal.SIGKILL)
    stale.kill_family()
    assert stale.wait(0)
    assert process.alive()
    record_path(home, "sleeper").write_text(json.dumps({**data, **change}))
    assert ManagedProcess.adopt(home, "sleeper") is None
    process.stop()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_a_damaged_record_is_as_good_as_none(home: Path, text: str) -> None:
    (home / "run").mkdir()
    record_path(home, "sleeper").write_text(text)
    assert ManagedProcess.adopt(home, "sleeper") is None
    ManagedProcess.start(home, SLEEPER).stop()


def test_a_second_one_of_the_same_name_is_refused(home: Path) -> None:
    first = ManagedProcess.start(home, SLEEPER)
    with pytest.raises(FailedPrecondition, match="runs already"):
        ManagedProcess.start(home, SLEEPER)
    assert ManagedProcess.adopt(home, "sleeper") is not None
    first.stop()


def test_children_of_a_dead_process_are_swept_before_the_next_start(home: Path) -> None:
    script = "setsid /bin/sleep 601 & exec /bin/sleep 600"
    program = Program("family", ["/bin/sh", "-c", script], env={"PATH": "/usr/bin:/bin"}, owns_children=True)
    first = ManagedProcess.start(home, program)
    _until(lambda: len(first.identity.family()) == 2)
    first.identity.signal(signal.SIGKILL)
    first.identity.wait(2)
    first.alive()
    _until(lambda: len(first.identity.family()) == 1)
    second = ManagedProcess.start(home, program)
    assert first.identity.family() == []
    _until(lambda: len(second.identity.family()) == 2)
    second.stop()
    assert second.identity.family() == []


def test_children_that_a_process_does_not_own_live_on(home: Path) -> None:
    script = "setsid /bin/sleep 602 9>&- & echo $!; exec /bin/sleep 600"
    program = Program("service", ["/bin/sh", "-c", script], env={"PATH": "/usr/bin:/bin"})
    first = ManagedProcess.start(home, program)
    _until(lambda: first.log_tail() != "")
    child = int(first.log_tail().splitlines()[0])
    first.stop()
    assert _stat_fields(child)[0] not in "ZX"
    os.kill(child, signal.SIGKILL)


def test_one_that_ignores_sigterm_is_killed_after_the_grace_time(home: Path) -> None:
    script = "trap '' TERM; echo deaf; while :; do sleep 0.05; done"
    program = Program("deaf", ["/bin/sh", "-c", script], env={"PATH": "/usr/bin:/bin"}, owns_children=True)
    process = ManagedProcess.start(home, program)
    _until(lambda: process.log_tail() == "deaf")
    began = time.monotonic()
    process.stop(grace=0.3)
    assert 0.3 <= time.monotonic() - began < 2
    assert not process.alive()
    assert process.identity.family() == []


def test_its_environment_is_what_was_given(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "x")
    process = ManagedProcess.start(home, Program("env", ["/usr/bin/env"], env={"A": "1"}))
    process.identity.wait(2)
    assert {line.partition("=")[0] for line in process.log_tail().splitlines()} <= {"A", "LC_CTYPE"}


def test_a_program_that_does_not_exist_is_a_clear_error(home: Path) -> None:
    with pytest.raises(Unavailable, match=str(log_path(home, "none"))):
        ManagedProcess.start(home, Program("none", ["/does/not/exist"]))
    assert "/does/not/exist is not there" in log_path(home, "none").read_text()
    assert read_record(home, "none") is None


async def test_a_supervised_process_is_restarted_ever_later(home: Path) -> None:
    started: list[float] = []

    async def start() -> ManagedProcess:
        started.append(time.monotonic())
        return ManagedProcess.adopt(home, "short") or ManagedProcess.start(home, Program("short", ["/bin/true"]))

    supervisor = Supervisor(Backoff(first=0.1, most=0.4))
    supervisor.watch("short", start)
    await until(lambda: len(started) >= 7, 30)
    await supervisor.close()
    pauses = [after - before for before, after in itertools.pairwise(started)]
    assert pauses[0] >= 0.1
    assert pauses[1] >= 0.2
    assert pauses[2] >= 0.4
    assert pauses[5] < 1.6  # uncapped it would be 3.2
    assert supervisor.restarts["short"] >= 4


async def test_a_start_that_fails_is_tried_again(home: Path) -> None:
    tries = 0

    async def start() -> ManagedProcess:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Unavailable("not yet")
        return ManagedProcess.start(home, SLEEPER)

    supervisor = Supervisor(Backoff(first=0.01))
    supervisor.watch("sleeper", start)
    await until(lambda: ManagedProcess.adopt(home, "sleeper"))
    await supervisor.close()
    assert tries == 2


def test_the_boot_is_part_of_the_identity(home: Path) -> None:
    process = ManagedProcess.start(home, SLEEPER)
    assert process.identity.boot_id == boot_id()
    process.stop()


def _until(condition: object, timeout: float = 3.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_was_killed_is_known_to_be_on_its_way_out(home: Path) -> None:
    """It may take a while: much memory is given back."""
    code = "import time; x = bytearray(b'1') * (1 << 30); print('up', flush=True); time.sleep(60)"
    big = ManagedProcess.start(home, Program("big", [sys.executable, "-c", code]))
    _until(lambda: "up" in big.log_tail())
    assert not big.identity.doomed()
    big.identity.signal(signal.SIGKILL)
    seen = []
    while big.identity.alive():
        seen.append(big.identity.doomed() or not big.identity.alive())
    assert all(seen)
    assert not big.identity.doomed()


def test_a_process_is_alive_while_threads_of_it_hold_its_ports() -> None:
    leaves = """
        import ctypes, sys, threading
        threading.Thread(target=sys.stdin.read).start()
        print("up", flush=True)
        ctypes.CDLL(None).syscall(60, 0)  # exit of this thread only: so it looks while a killed one is cleared away
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(leaves)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout and process.stdout.readline() == b"up\n"
        state, *fields = _stat_fields(process.pid)
        while state != "Z":
            state, *fields = _stat_fields(process.pid)
        identity = Identity(process.pid, int(fields[18]), boot_id(), "")
        assert identity.alive()
        assert process.stdin
        process.stdin.close()
        assert identity.wait(5)
        assert not identity.alive()


def _stat_fields(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def test_what_it_said_last_is_of_this_life(home: Path) -> None:
    for word in ("before", "now"):
        program = Program("echo", ["/bin/sh", "-c", f"echo {word}"], env={"PATH": "/usr/bin:/bin"})
        process = ManagedProcess.start(home, program)
        process.identity.wait(5)
    assert process.log_tail() == "now"
    assert log_path(home, "echo").read_text() == "before\nnow\n"


def test_long_logs_are_put_aside_at_a_start_and_some_are_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_LOG_LIMIT", 3)
    for number in range(6):
        program = Program("echo", ["/bin/sh", "-c", f"echo life {number}"], env={"PATH": "/usr/bin:/bin"})
        ManagedProcess.start(home, program).identity.wait(5)
    kept = [path.read_text() for path in sorted((home / "logs").iterdir())]
    assert kept == [f"life {number}\n" for number in (5, 4, 3, 2)]


def test_in_a_copy_of_a_home_a_record_names_nobody(home: Path, tmp_path: Path) -> None:
    process = ManagedProcess.start(home, SLEEPER)
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    found = read_record(copy, "sleeper")
    assert found is not None
    assert (found[0].alive(), found[0].signal(signal.SIGKILL), found[1]) == (False, False, {"port": 1})
    assert ManagedProcess.recorded(copy, "sleeper") is None
    assert process.alive()
    home.rename(tmp_path / "moved")
    moved = ManagedProcess.adopt(tmp_path / "moved", "sleeper")
    assert moved is not None
    moved.stop()
