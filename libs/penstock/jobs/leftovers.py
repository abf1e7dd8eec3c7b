"""What a kill may leave of jobs that have ended: their folders. They are looked for at a start, and then every hour."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from penstock.jobs.executor import Executor

EVERY_SECONDS = 3600.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Leftovers:
    """`run()` it as long as the service lives.

    `prefix` is how the ids of its jobs begin; `wanted` answers those of some jobs that have not ended.
    """

    executor: Executor
    prefix: str
    wanted: Callable[[Sequence[str]], Awaitable[set[str]]]

    async def run(self) -> None:
        """Sweep now and every hour, for ever. Raises Unavailable while the documents cannot be read."""
        while True:
            await self.sweep()
            await asyncio.sleep(EVERY_SECONDS)

    async def sweep(self) -> None:
        """Remove what is there of jobs that are not wanted, unless a process still holds it."""
        # In this order: a job has its document before it has a folder, so one that begins meanwhile is not in the list.
        jobs = await self.executor.jobs(self.prefix)
        wanted = await self.wanted(jobs)
        for job in jobs:
            if job not in wanted:
                removed = await self.executor.remove(job)
                log.info("removed what was left of a job" if removed else "an ended job still runs", job=job)
