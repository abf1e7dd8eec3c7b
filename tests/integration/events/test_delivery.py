"""From a change to a handler, over the real servers."""

from __future__ import annotations

import asyncio

from penstock.events import Bus, Event, EventLog
from penstock.store import Aggregates, Cause, Database, current_cause
from tests.integration.events.world import (
    Journal,
    Run,
    consumer_of,
    new_project,
    queued,
    relay_of,
    running,
    runs_in,
    step,
    until,
)


async def test_events_arrive_in_order_with_their_cause_and_leave_the_outbox(bus: Bus, database: Database) -> None:
    project, runs = new_project(), await runs_in(database)
    journal = Journal(database, project)
    name = f"projects/{project}/runs/a"
    seen: list[Cause | None] = []
    consumer = consumer_of(bus, database, journal)
    handle = journal.handle

    async def noting(event: Event) -> None:
        if event.project == project:
            seen.append(current_cause.get())
        await handle(event)

    consumer._handler = noting
    async with running(relay_of(bus, database, runs).run(), consumer.run()):
        await runs.create(name, Run(project), [queued(name)])
        for _ in range(4):
            await step(runs, name)
        await journal.count(5)
        await until(lambda: _empty(runs))
    assert journal.sequences(name) == [1, 2, 3, 4, 5]
    first = journal.told[0]
    assert (first.id, first.type, first.project) == (f"{name}@1", "training.run.queued", project)
    assert (first.source, first.correlation_id, first.causation_id) == ("//penstock/training", f"{name}@1", "")
    assert first.message().run == name  # type: ignore[attr-defined]
    assert seen[0] == Cause(f"{name}@1", f"{name}@1", "")
    kept = await EventLog(database).of_resource(name, after=2)
    assert [event.sequence for event in kept] == [3, 4, 5]
    assert kept == journal.told[2:]


async def _empty(runs: Aggregates[Run]) -> bool:
    return await runs.pending() == []


async def test_many_resources_go_on_side_by_side(bus: Bus, database: Database) -> None:
    project, runs = new_project(), await runs_in(database)
    journal = Journal(database, project)
    names = [f"projects/{project}/runs/r{n}" for n in range(30)]
    async with running(relay_of(bus, database, runs).run(), consumer_of(bus, database, journal).run()):
        await asyncio.gather(*(runs.create(name, Run(project), [queued(name)]) for name in names))
        for _ in range(4):
            await asyncio.gather(*(step(runs, name) for name in names))
        await journal.count(150)
    assert all(journal.sequences(name) == [1, 2, 3, 4, 5] for name in names)
