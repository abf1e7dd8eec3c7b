"""Our side of the events: outbox, relay, stream and consumer, put together as a service does it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from penstock import names
from penstock.events import Bus, Consumer, Event, NewEvent, Relay
from penstock.events.subjects import STREAM
from penstock.store import Aggregates, Database

PROJECT = "bench"
KIND = "training.run"
WRITERS = 16


@dataclass(frozen=True)
class Run:
    """An aggregate as small as they come."""

    project: str
    steps: int = 0


class Arrivals:
    """When which event reached the handler."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], float] = {}
        self._another = asyncio.Event()

    async def handle(self, event: Event) -> None:
        """Note it, and do nothing else."""
        self._seen[event.subject, event.sequence] = time.perf_counter()
        self._another.set()

    async def of(self, subject: str, sequence: int) -> float:
        """The moment at which an event arrived, once it has."""
        while (subject, sequence) not in self._seen:
            self._another.clear()
            await self._another.wait()
        return self._seen[subject, sequence]


class OurEvents:
    """Publishes what lies in outboxes, handles what lies in the stream, and takes one event all the way."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._runs = Aggregates(database, "runs", Run, indexes={"project": lambda run: run.project})
        self._relay = Relay(database, [self._runs], bus)
        self._numbers = itertools.count()

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._runs.prepare()

    async def publishing(self, count: int) -> tuple[float, float]:
        """Relay `count` events of as many aggregates: seconds until the stream has all, and until all is trimmed."""
        await self._write(count)
        wanted = await self._bus.last_sequence(STREAM) + count
        began = time.perf_counter()
        relaying = asyncio.create_task(self._relay.once())
        while await self._bus.last_sequence(STREAM) < wanted:  # noqa: ASYNC110 (the stream is another process)
            await asyncio.sleep(0.005)
        published = time.perf_counter() - began
        assert await relaying == count
        return published, time.perf_counter() - began

    async def handling(self, count: int) -> float:
        """Seconds until a new consumer has called its handler for `count` events of as many aggregates."""
        await self._bus.context.purge_stream(STREAM)
        await self._write(count)
        await self._relay.once()
        handled, all_handled = 0, asyncio.Event()

        async def handle(event: Event) -> None:
            nonlocal handled
            handled += 1
            if handled == count:
                all_handled.set()

        consumer = Consumer(self._bus, self._database, f"bench-{next(self._numbers)}", [KIND], handle, effects=False)
        began = time.perf_counter()
        async with _background(consumer):
            await all_handled.wait()
            return time.perf_counter() - began

    async def latencies(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds to the handler, one event at a time: from the return of the command's write, and from its call."""
        arrivals = Arrivals()
        consumer = Consumer(self._bus, self._database, f"bench-{next(self._numbers)}", [KIND], arrivals.handle)
        returned, called = [], []
        async with _background(self._relay, consumer):
            name = await self._first(arrivals)
            for _ in range(count):
                began = time.perf_counter()
                stored = await self._runs.change(
                    name, lambda run: (replace(run, steps=run.steps + 1), [_started(name, run.steps)])
                )
                committed = time.perf_counter()
                at = await arrivals.of(name, stored.sequence)
                returned.append(at - committed)
                called.append(at - began)
        return returned, called

    async def _first(self, arrivals: Arrivals) -> str:
        """An aggregate whose event has arrived: a consumer takes nothing from before it was made."""
        while True:
            name = await self._create()
            try:
                async with asyncio.timeout(0.5):
                    await arrivals.of(name, 1)
            except TimeoutError:
                continue
            return name

    async def _write(self, count: int) -> None:
        """Commit `count` aggregates with an event each."""
        slots = asyncio.Semaphore(WRITERS)

        async def one() -> None:
            async with slots:
                await self._create()

        await asyncio.gather(*(one() for _ in range(count)))

    async def _create(self) -> str:
        name = names.build("run", PROJECT, f"r{next(self._numbers)}")
        await self._runs.create(name, Run(PROJECT), [_started(name, 0)])
        return name


def _started(name: str, attempt: int) -> NewEvent:
    return NewEvent("training.run.started", {"run": name, "attempt": attempt})


@asynccontextmanager
async def _background(*parts: Relay | Consumer) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
