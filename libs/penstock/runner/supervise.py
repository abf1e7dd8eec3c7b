"""Watches a running command: its output, its metrics, its limits, a wish to cancel; and ends everything it started."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from penstock.jobs.result import Cause
from penstock.runner import processes
from penstock.runner.log import Log
from penstock.runner.metrics import MetricsStream

TICK_SECONDS = 0.05
MEMORY_SECONDS = 0.2
DRAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Limits:
    """`deadline` on time.monotonic() (None: none), `memory` in bytes (0: none), `grace` in seconds after SIGTERM."""

    deadline: float | None
    memory: int
    grace: float


@dataclass(frozen=True)
class Ending:
    """How the command ended: its exit code (128 + n for signal n), and why if it was ended before its own end."""

    exit_code: int
    cause: Cause = Cause.NONE


class Supervisor:
    """Sees one command (its `pid` a child of this process, its output from the pipe `output`) to its end.

    `cancelled` gives a grace in seconds once somebody wants the job to end, else None. With `owner`, every descendant
    of this process belongs to the command.
    """

    def __init__(
        self,
        log: Log,
        metrics: MetricsStream,
        limits: Limits,
        *,
        marker: str,
        cancelled: Callable[[], float | None],
        owner: bool,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._limits = limits
        self._marker = marker
        self._cancelled = cancelled
        self._ancestor = os.getpid() if owner else 0
        self._cause = Cause.NONE
        self._kill_at = float("inf")
        self._memory_at = 0.0

    def watch(self, pid: int, output: int) -> Ending:
        """Wait for the end of the command, and leave nothing of it running."""
        leader = processes.identity_of(pid)
        process = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(output, select.POLLIN)
        os.set_blocking(output, False)
        try:
            while not (ready := dict(poll.poll(TICK_SECONDS * 1000))).get(process):
                if output in ready and not self._pump(output):
                    poll.unregister(output)
                self._metrics.poll()
                self._check(leader)
            exit_code = _shell_code(os.waitpid(pid, 0)[1])
        except BaseException:
            # Whatever went wrong with the watch, the command must not run on unwatched.
            processes.end_family(leader, self._marker, self._ancestor)
            raise
        finally:
            os.close(process)
        self._sweep(leader)
        self._drain(output)
        self._metrics.poll(end=True)
        return Ending(exit_code, self._cause)

    def _pump(self, output: int) -> bool:
        """Take what was printed; False at its end."""
        try:
            while data := os.read(output, 1 << 16):
                self._log.write(data)
                if len(data) < 1 << 16:
                    return True
        except BlockingIOError:
            return True
        return False

    def _drain(self, output: int) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._pump(output) and time.monotonic() < deadline:
            select.select([output], [], [], TICK_SECONDS)

    def _check(self, leader: processes.Identity) -> None:
        now = time.monotonic()
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._log.note("the grace is over: it is killed")
            processes.end_family(leader, self._marker, self._ancestor)
        elif self._cause is Cause.NONE:
            self._look(leader, now)
        if self._ancestor:
            processes.reap_orphans(leader.pid)

    def _look(self, leader: processes.Identity, now: float) -> None:
        grace = self._cancelled()
        if grace is not None:
            self._stop(leader, Cause.CANCELLED, f"cancelled: it has {grace:g} s to end", grace)
        elif self._limits.deadline is not None and now > self._limits.deadline:
            self._stop(
                leader, Cause.TIMEOUT, f"out of time: it has {self._limits.grace:g} s to end", self._limits.grace
            )
        elif self._limits.memory and now >= self._memory_at:
            self._memory_at = now + MEMORY_SECONDS
            used = processes.memory_of(self._family(leader), self._limits.memory)
            if used > self._limits.memory:
                text = f"out of memory: it uses {used >> 20} MiB of the {self._limits.memory >> 20} MiB it may"
                self._stop(leader, Cause.MEMORY, text, 0.0)

    def _stop(self, leader: processes.Identity, cause: Cause, text: str, grace: float) -> None:
        self._cause = cause
        self._kill_at = time.monotonic() + grace
        self._log.note(text)
        if grace > 0:
            try:
                os.killpg(leader.pid, signal.SIGTERM)
            except ProcessLookupError:  # it has not made its group yet
                processes.send(leader, signal.SIGTERM)

    def _sweep(self, leader: processes.Identity) -> None:
        left = processes.end_family(leader, self._marker, self._ancestor)
        if left and self._cause is Cause.NONE:
            self._log.note(f"{left} processes that the command had left running were ended")

    def _family(self, leader: processes.Identity) -> list[processes.Identity]:
        return processes.family(leader, "" if self._ancestor else self._marker, self._ancestor)


def _shell_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
