"""An emitting service and a consuming one, small enough to check every promise about them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from penstock.events import Bus, Consumer, Event, NewEvent, Relay
from penstock.store import Aggregates, Database, Rows


@dataclass(frozen=True)
class Run:
    project: str
    steps: int = 0


def new_project() -> str:
    """A project of its own: streams are shared by the tests of a module."""
    return "p" + secrets.token_hex(4)


async def runs_in(database: Database) -> Aggregates[Run]:
    runs = Aggregates(database, "runs", Run, indexes={"project": lambda run: run.project})
    await runs.prepare()
    return runs


def queued(name: str) -> NewEvent:
    return NewEvent("training.run.queued", {"run": name})


def started(name: str, attempt: int) -> NewEvent:
    return NewEvent("training.run.started", {"run": name, "attempt": attempt})


async def step(runs: Aggregates[Run], name: str, request_id: str | None = None) -> None:
    """A command: one more step, and its event."""

    def transition(run: Run) -> tuple[Run, list[NewEvent]]:
        return replace(run, steps=run.steps + 1), [started(name, run.steps + 1)]

    await runs.change(name, transition, request_id=request_id)


class Journal:
    """Applies events as handlers should: under ids derived from the event; and notes the order of what it was told."""

    def __init__(self, database: Database, project: str) -> None:
        self.rows = Rows(database, "journal", indexes=("subject",))
        self.project = project
        self.told: list[Event] = []
        self.refuse: Callable[[Event], Exception | None] = lambda event: None
        self.arrived = asyncio.Event()

    async def handle(self, event: Event) -> None:
        if event.project != self.project:
            return
        if (error := self.refuse(event)) is not None:
            raise error
        await self.rows.insert([{"_id": event.id, "subject": event.subject, "sequence": event.sequence}])
        self.told.append(event)
        self.arrived.set()

    def sequences(self, subject: str) -> list[int]:
        return [event.sequence for event in self.told if event.subject == subject]

    async def count(self, wanted: int, seconds: float = 20.0) -> None:
        await until(lambda: len(self.told) >= wanted, seconds)


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 20.0) -> None:
    """Wait for a condition; fails when it does not come."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*operations: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run operations in the background; their ends are awaited."""
    tasks = [asyncio.create_task(operation) for operation in operations]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def consumer_of(bus: Bus, database: Database, journal: Journal, **options: Any) -> Consumer:
    options = {"patience": 0.3, "retry_delays": (0.01,), "effects": False, "ack_wait": 0.3, **options}
    name = options.pop("name", f"journal-{journal.project}")
    return Consumer(bus, database, name, ["training.run"], journal.handle, **options)


def relay_of(bus: Bus, database: Database, runs: Aggregates[Run]) -> Relay:
    return Relay(database, [runs], bus)
