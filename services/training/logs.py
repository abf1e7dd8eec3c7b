"""A run's log: from the executor while the attempt runs, from the object store after."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from penstock.errors import NotFound
from penstock.jobs.executor import Executor
from penstock.objects import ObjectStore
from services.training.jobs import ref_of
from services.training.model import Attempt, Run
from services.training.reading import stream
from services.training.repository import Repository

POLL_SECONDS = 0.2
MAX_TAIL = 10_000
Chunk = tuple[int, bytes]  # the offset after the bytes, and the bytes


@dataclass(frozen=True)
class Logs:
    """Reads logs, in chunks of at most 1 MiB."""

    repository: Repository
    executor: Executor
    objects: ObjectStore

    async def read(
        self, name: str, attempt: int, *, offset: int, follow: bool, tail: int
    ) -> AsyncIterator[tuple[int, Chunk]]:
        """The attempt and its log, from `offset` on or its last `tail` lines; with `follow`, until the attempt ends.

        `attempt` 0 is the accepted or the current one. Raises NotFound for a run or an attempt that does not exist.
        """
        run = (await self.repository.runs.get(name)).value
        number = attempt or run.accepted or run.attempt
        if not attempt and not number and follow:
            number = await self._first_attempt(name)
        if not number:
            return  # nothing of it has run
        if tail:
            offset = await self._tail_offset(run, number, min(tail, MAX_TAIL))
        while True:
            ended = _attempt((await self.repository.runs.get(name)).value, number).ended is not None
            async for end, data in self._available(name, number, offset):
                offset = end
                yield number, (end, data)
            if ended or not follow:
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _first_attempt(self, name: str) -> int:
        """Wait until there is an attempt to follow; 0 if the run ends without one."""
        while True:
            run = (await self.repository.runs.get(name)).value
            if run.attempt or run.ended is not None:
                return run.attempt
            await asyncio.sleep(POLL_SECONDS)

    async def _available(self, name: str, number: int, offset: int) -> AsyncIterator[Chunk]:
        """What there is now from `offset` on."""
        run = (await self.repository.runs.get(name)).value
        kept = _attempt(run, number)
        if kept.ended is not None:
            async for chunk in self._kept(kept, offset):
                yield chunk
            return
        while (found := await self.executor.read_log(ref_of(run, number), offset)).data:
            offset = found.offset
            yield offset, found.data

    async def _kept(self, attempt: Attempt, offset: int) -> AsyncIterator[Chunk]:
        if not attempt.log:
            return
        at = 0
        async for data in stream(self.objects, attempt.log):
            at += len(data)
            if at > offset:
                yield at, data[max(0, len(data) - (at - offset)) :]

    async def _tail_offset(self, run: Run, number: int, lines: int) -> int:
        """Where the last `lines` lines begin."""
        starts: deque[int] = deque([0], maxlen=lines + 1)
        end = 0
        async for after, data in self._available(run.name, number, 0):
            base, at = after - len(data), -1
            while (at := data.find(b"\n", at + 1)) >= 0:
                starts.append(base + at + 1)
            end = after
        if starts and starts[-1] == end:
            starts.pop()
        return starts[-lines] if len(starts) >= lines else (starts[0] if starts else 0)


def _attempt(run: Run, number: int) -> Attempt:
    for attempt in run.attempts:
        if attempt.number == number:
            return attempt
    raise NotFound(f"{run.name} has no attempt {number}.", field="attempt")
