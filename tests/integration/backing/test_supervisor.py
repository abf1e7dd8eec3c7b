"""Watching goes on whatever happens to the log, and the log says what happened."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.backing.identity import Identity
from penstock.backing.process import ManagedProcess, Program
from penstock.backing.records import read_record
from penstock.backing.supervisor import Supervisor
from tests.integration.backing.waiting import until

WATCH = """
    import asyncio, sys
    from pathlib import Path
    from penstock.backing.process import ManagedProcess, Program
    from penstock.backing.supervisor import Backoff, Supervisor
    from penstock.runtime import logs

    home, program = Path(sys.argv[1]), Program("sleeper", ["/bin/sleep", "600"])

    async def start():
        return ManagedProcess.adopt(home, "sleeper") or ManagedProcess.start(home, program, attached=True)

    async def watch():
        supervisor = Supervisor(Backoff(first=0.05, most=0.05))
        supervisor.watch("sleeper", start)
        await supervisor.ended()

    logs.configure()
    asyncio.run(watch())
"""


@contextmanager
def watched(home: Path, log: Path) -> Iterator[None]:
    """A process of its own that keeps `sleeper` up and logs to `log`."""
    with log.open("ab") as errors:
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WATCH), str(home)], stderr=errors)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def sleeper(home: Path) -> Identity | None:
    """The living one."""
    found = read_record(home, "sleeper")
    return found[0] if found is not None and found[0].alive() else None


async def test_a_log_on_a_full_disk_ends_no_watch(home: Path) -> None:
    with watched(home, Path("/dev/full")):
        for _ in range(3):
            await until(lambda: sleeper(home))
            before = sleeper(home)
            assert before is not None
            before.signal(signal.SIGKILL)
            assert before.wait(5)


async def test_the_log_says_what_ended_how_and_when_it_is_started_again(home: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with watched(home, log):
        await until(lambda: sleeper(home))
        before = sleeper(home)
        assert before is not None
        before.signal(signal.SIGTERM)
        await until(lambda: log.read_text().count("\n") >= 2)
    ended, again = (json.loads(line) for line in log.read_text().splitlines()[:2])
    assert (ended["process"], ended["pid"], ended["exit_status"]) == ("sleeper", before.pid, -signal.SIGTERM)
    assert (again["process"], again["after_seconds"]) == ("sleeper", 0.05)
    assert ended["timestamp"] <= again["timestamp"]


async def test_a_watch_that_ends_is_noticed() -> None:
    async def start() -> ManagedProcess:
        raise asyncio.CancelledError  # as no start should

    supervisor = Supervisor()
    supervisor.watch("sleeper", start)
    assert await asyncio.wait_for(supervisor.ended(), 5) == "sleeper"
    await supervisor.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_exit_status_is_that_of_a_child(home: Path, number: signal.Signals) -> None:
    process = ManagedProcess.start(home, Program("sleeper", ["/bin/sleep", "600"]))
    assert process.exit_status() is None
    adopted = ManagedProcess.adopt(home, "sleeper")
    assert adopted is not None
    process.identity.signal(number)
    process.identity.wait(5)
    assert process.exit_status() == -number
    assert adopted.exit_status() is None
