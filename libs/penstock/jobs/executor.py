"""What a service asks of whatever runs its jobs: processes of this machine, or a cluster.

A reconciler calls `observe` and acts: RESULT is accepted (by compare-and-set on the attempt), HELD is left to run,
NEVER_STARTED is started (again), LOST is followed by `kill_rest` and the next attempt.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from penstock.jobs.result import JobResult
from penstock.jobs.spec import AttemptRef, JobSpec, Report


class Phase(enum.StrEnum):
    """What is known of an attempt."""

    NEVER_STARTED = "NEVER_STARTED"
    HELD = "HELD"
    RESULT = "RESULT"
    LOST = "LOST"


@dataclass(frozen=True)
class Observation:
    """An attempt's phase, and its result when there is one."""

    phase: Phase
    result: JobResult | None = None


@dataclass(frozen=True)
class LogChunk:
    """Bytes of a log, and the offset after them to ask for next."""

    data: bytes
    offset: int


class Executor(Protocol):
    """Runs attempts of jobs. Nothing is remembered in a service's memory: any instance can go on with any attempt."""

    async def prepare(self) -> None:
        """Make ready for quick starts, as far as that is possible; the first jobs may come before it is done."""

    async def start(self, spec: JobSpec) -> None:
        """Start an attempt. Again for the same attempt changes nothing, whatever has become of it."""

    async def observe(self, ref: AttemptRef) -> Observation:
        """What has become of an attempt. RESULT and LOST are final."""

    async def report_to(self, ref: AttemptRef, report: Report) -> None:
        """Tell a running attempt a new address (or token) for its reports."""

    async def cancel(self, ref: AttemptRef, grace: float) -> None:
        """Have an attempt end: SIGTERM now, SIGKILL after `grace` seconds. It then has a result, CANCELLED."""

    async def kill_rest(self, ref: AttemptRef) -> int:
        """End every process that is left of an attempt; returns how many there were. To be called when it is LOST."""

    async def read_log(self, ref: AttemptRef, offset: int = 0, limit: int = 1 << 20) -> LogChunk:
        """What was printed from `offset` on, at most `limit` bytes, while it runs and after. Empty: no more now."""

    async def cleanup(self, ref: AttemptRef, *, last: bool) -> None:
        """Forget an attempt that has ended: its files (not its result). With `last`, the job's checkpoints too."""

    async def jobs(self, prefix: str) -> list[str]:
        """The ids, beginning with `prefix`, of the jobs of which anything is left here."""

    async def remove(self, job: str) -> bool:
        """End and forget all attempts of a job that nobody waits for; False, and nothing done, while one is held."""
