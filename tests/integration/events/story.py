"""A short story of commands, events and their effects, and what must be true of it whatever fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.errors import PenstockError
from penstock.events import Bus, Event
from penstock.store import Aggregates, Database, Rows
from tests.integration.events.world import Run, consumer_of, queued, relay_of, running, runs_in, step, until

STEPS = {"a": 3, "b": 1}  # runs and their steps, the creation included
Acknowledge = Callable[[str], None]


@dataclass
class Record:
    """What was seen from outside, over all incarnations of the services."""

    project: str
    acknowledged: set[str] = field(default_factory=set)
    disorder: list[str] = field(default_factory=list)  # effects whose predecessor was not there yet
    told: list[str] = field(default_factory=list)

    def name(self, id: str) -> str:
        return f"projects/{self.project}/runs/{id}"

    def events(self) -> int:
        return sum(STEPS.values())


class Effects:
    """A consumer's effects: one row an event, made once, after that of the event before."""

    def __init__(self, database: Database, record: Record) -> None:
        self.rows = Rows(database, "effects", indexes=("subject",))
        self.project = record.project
        self.record = record

    async def handle(self, event: Event) -> None:
        if event.project != self.project:
            return
        self.record.told.append(event.id)
        before = f"{event.subject}@{event.sequence - 1}"
        if event.sequence > 1 and await self.rows.get(before) is None:
            self.record.disorder.append(event.id)
        await self.rows.insert([{"_id": event.id, "subject": event.subject, "sequence": event.sequence}])


async def command_all(runs: Aggregates[Run], record: Record, acknowledge: Acknowledge) -> None:
    """All commands in turn, each repeated under its request id until it is acknowledged."""
    for id, steps in STEPS.items():
        for n in range(steps):
            request = f"{id}{n}"
            while request not in record.acknowledged:
                try:
                    await _command(runs, record.name(id), record.project, n, request)
                except PenstockError:
                    await asyncio.sleep(0.05)
                else:
                    acknowledge(request)


async def _command(runs: Aggregates[Run], name: str, project: str, n: int, request: str) -> None:
    if n == 0:
        await runs.create(name, Run(project, 1), [queued(name)], request_id=request)
    else:
        await step(runs, name, request)


async def live(bus: Bus, database: Database, record: Record, acknowledge: Acknowledge, seconds: float = 30) -> None:
    """One incarnation: commands, relay and consumer, until every effect is there and every outbox empty."""
    runs = await runs_in(database)
    effects = Effects(database, record)
    consumer = consumer_of(bus, database, effects)  # type: ignore[arg-type]
    async with running(relay_of(bus, database, runs).run(), consumer.run()):
        await command_all(runs, record, acknowledge)

        async def complete() -> bool:
            return len(await effects.rows.find()) >= record.events() and not await runs.pending()

        await until(complete, seconds)


async def verify(database: Database, record: Record) -> list[str]:
    """The broken promises, none hopefully."""
    runs = await runs_in(database)
    broken = [f"{event} was applied before its predecessor" for event in record.disorder]
    for id, steps in STEPS.items():
        stored = await runs.get(record.name(id))
        if (stored.value.steps, stored.sequence) != (steps, steps):
            broken.append(f"{id} has {stored.value.steps} steps and {stored.sequence} events instead of {steps}")
    rows = await Rows(database, "effects", indexes=("subject",)).find()
    expected = {f"{record.name(id)}@{n}" for id, steps in STEPS.items() for n in range(1, steps + 1)}
    if (found := {row["_id"] for row in rows}) != expected:
        broken.append(f"effects missing: {sorted(expected - found)}, of nothing: {sorted(found - expected)}")
    return broken
