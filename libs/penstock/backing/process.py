"""A server as a process of its own: started once, found again by whoever comes next, stopped by identity only.

`<home>/run/<name>.json` holds the record, `<home>/logs/<name>.log` the output. Starting is synchronous (a fork and some
15 ms until the record is there); waiting for readiness is asynchronous and the server's own business.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.backing import _launch
from penstock.backing.identity import MARKER, Identity
from penstock.backing.records import NO_BOOT, Facts, lock_path, log_path, log_size, read_record, record_path, turn_of
from penstock.backing.sandbox import Sandbox
from penstock.errors import FailedPrecondition, Unavailable

_LAUNCH_TIMEOUT = 10.0
_ANSWER_LIMIT = 2**16


@dataclass(frozen=True)
class Program:
    """What to run: `argv[0]` is a path; `env` is the whole environment; `facts` (ports and such) go into the record.

    With `owns_children`, whatever it starts is killed when it is, or before it is started again; without, children
    (such as the jobs that a service has started) live on.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str | int] = field(default_factory=dict)
    cwd: Path | None = None  # the home, if not given
    owns_children: bool = False
    sandbox: Sandbox | None = None


class ManagedProcess:
    """A running process of a home directory, started here or adopted from an earlier parent."""

    def __init__(self, home: Path, name: str, identity: Identity, facts: Facts) -> None:
        self.home = home
        self.name = name
        self.identity = identity
        self.facts = facts
        self._child: subprocess.Popen[bytes] | None = None
        self._log_before = 0  # bytes that were in the log when it was started

    @classmethod
    def recorded(cls, home: Path, name: str) -> ManagedProcess | None:
        """The process that the home's record names, dead or alive: `stop` also ends what a dead one left behind."""
        found = read_record(home, name)
        return cls(home, name, *found) if found is not None and found[0].boot_id != NO_BOOT else None

    @classmethod
    def adopt(cls, home: Path, name: str) -> ManagedProcess | None:
        """The process that the home's record names, if that very one still runs; else None."""
        found = cls.recorded(home, name)
        return found if found is not None and found.identity.alive() else None

    @classmethod
    def ensure(cls, home: Path, name: str, program: Callable[[], Program], *, attached: bool = False) -> ManagedProcess:
        """Adopt the running one or start `program()`; of two callers at once, one starts and the other adopts."""
        with turn_of(home, name):
            found = cls.adopt(home, name)
            if found is None:
                _sweep_predecessor(home, name)  # first of all: its children may hold the ports
                found = cls.start(home, program(), attached=attached)
            return found

    @classmethod
    def start(cls, home: Path, program: Program, *, attached: bool = False) -> ManagedProcess:
        """Start it in a session of its own; it survives this process unless `attached`.

        An attached process is killed by the kernel when the *thread* that started it ends: start it from the main one.
        Children that a dead predecessor owned are killed first. Raises FailedPrecondition if one of this name
        runs already, Unavailable if it cannot be started.
        """
        for folder in ("run", "logs"):
            (home / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        _sweep_predecessor(home, program.name)
        marker = secrets.token_hex(16)
        log_before = log_size(home, program.name)
        child = _spawn(home, program, marker, attached)
        identity, facts = _await_record(home, program.name, marker, child)
        process = cls(home, program.name, identity, facts)
        process._child = child
        process._log_before = log_before
        return process

    @classmethod
    def become(cls, home: Path, name: str, facts: Mapping[str, str | int]) -> None:
        """Make this very process `name`, for as long as it lives, unless it was started as that.

        Raises FailedPrecondition if another one runs.
        """
        with turn_of(home, name):
            found = cls.adopt(home, name)
            if found is not None and found.identity.pid == os.getpid():
                return
            try:
                lock = _launch.take(str(lock_path(home, name)))
            except BlockingIOError:
                raise _runs_already(home, name) from None
            _launch.write_record(str(record_path(home, name)), secrets.token_hex(16), dict(facts), lock)

    def alive(self) -> bool:
        """Whether it still runs."""
        if self._child is not None:
            self._child.poll()  # reaps it, so that no zombie is left
        return self.identity.alive()

    def stop(self, grace: float = 10.0) -> None:
        """SIGTERM, up to `grace` seconds, then SIGKILL to it and the children that it owns. Idempotent.

        The record stays, so that the next start finds the port that this one had.
        """
        if self.identity.signal(signal.SIGTERM):
            self.identity.wait(grace)
        self.kill()

    def kill(self) -> None:
        """SIGKILL it and the children that it owns."""
        self.identity.signal(signal.SIGKILL)
        self.identity.wait(5.0)
        self.identity.kill_family()
        if self._child is not None:
            self._child.wait(5.0)

    def forget(self) -> None:
        """Remove the files of a stopped process that will not come back (its log stays)."""
        for path in (self.home / "run").glob(f"{self.name}.*"):
            path.unlink(missing_ok=True)

    async def exited(self) -> None:
        """Return when it is gone."""
        await self.identity.exited()
        self.alive()

    def exit_status(self) -> int | None:
        """How it ended: its exit code, or the negative number of a signal; None for one that was adopted, or runs."""
        return self._child.poll() if self._child is not None else None

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that it wrote; of one that was adopted, perhaps also those of earlier ones."""
        path = log_path(self.home, self.name)
        if not path.exists():
            return ""
        with path.open("rb") as log:
            log.seek(max(self._log_before, path.stat().st_size - 64 * 1024))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])


def _runs_already(home: Path, name: str) -> FailedPrecondition:
    return FailedPrecondition(f"{name} of {home} runs already (or a child of it does); stop it first")


def _sweep_predecessor(home: Path, name: str) -> None:
    before = read_record(home, name)
    if before is not None and not before[0].alive():
        before[0].kill_family()


def _spawn(home: Path, program: Program, marker: str, attached: bool) -> subprocess.Popen[bytes]:
    plan = {
        "lock": str(lock_path(home, program.name)),
        "record": str(record_path(home, program.name)),
        "marker": marker,
        "facts": dict(program.facts),
        "argv": list(program.argv),
        "sandbox": program.sandbox.plan() if program.sandbox else None,
        "parent": os.getpid() if attached else 0,
    }
    with log_path(home, program.name).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _launch.__file__, json.dumps(plan)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**program.env, MARKER: marker} if program.owns_children else dict(program.env),
            cwd=program.cwd or home,
            start_new_session=True,
        )


def _await_record(home: Path, name: str, marker: str, child: subprocess.Popen[bytes]) -> tuple[Identity, Facts]:
    deadline = time.monotonic() + _LAUNCH_TIMEOUT
    while True:
        code = child.poll()  # first: one that has ended may have been recorded before
        found = read_record(home, name)
        if found is not None and found[0].marker == marker:
            return found
        if code == _launch.ALREADY_RUNNING:
            raise _runs_already(home, name)
        if code is not None or time.monotonic() > deadline:
            child.kill()
            child.wait()
            raise Unavailable(f"{name} could not be started; see {log_path(home, name)}")
        time.sleep(0.002)


async def wait_ready(
    process: ManagedProcess, probe: Callable[[], Awaitable[bool]], *, timeout: float, interval: float = 0.01
) -> None:
    """Poll `probe` until it answers True.

    Raises Unavailable with the end of the log if the process dies first, or after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not await probe():
        if not process.alive():
            raise Unavailable(f"{process.name} ended while starting. Its last lines:\n{process.log_tail()}")
        if time.monotonic() > deadline:
            raise Unavailable(f"{process.name} is not ready after {timeout:g} s. Its last lines:\n{process.log_tail()}")
        await asyncio.sleep(interval)


async def http_ok(port: int, path: str, *, timeout: float = 1.0) -> bool:
    """Whether GET http://127.0.0.1:`port``path` answers 200."""
    answer = await http_get(port, path, timeout=timeout)
    return answer is not None and answer[0] == 200


async def http_get(port: int, path: str, *, timeout: float = 1.0) -> tuple[int, bytes] | None:
    """The status and the raw rest of what GET http://127.0.0.1:`port``path` answers; needs no HTTP library.

    None if that does not come within `timeout` seconds.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                status = await reader.readline()
                rest = await reader.read(_ANSWER_LIMIT)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    words = status.split()
    return (int(words[1]), rest) if len(words) > 1 and words[1].isdigit() else None
