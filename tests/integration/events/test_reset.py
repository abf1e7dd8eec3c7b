"""A projection is emptied while events come, or while its process dies: the replay that follows has all of it again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.events import Bus, Consumer, Event, EventLog, Relay, replay
from penstock.events.cursors import Cursors
from penstock.store import Database
from tests.integration.events.faults import Fault, Injector, injected
from tests.integration.events.test_kth_write import fresh
from tests.integration.events.world import (
    Journal,
    Run,
    consumer_of,
    new_project,
    queued,
    running,
    runs_in,
    step,
    until,
)

STEPS = 3


async def emitted(bus: Bus, database: Database, project: str) -> str:
    """The name of a run whose events are in the stream."""
    name = f"projects/{project}/runs/a"
    runs = await runs_in(database)
    await runs.create(name, Run(project), [queued(name)])
    for _ in range(STEPS - 1):
        await step(runs, name)
    await Relay(database, [runs], bus).once()
    return name


async def rebuilt(bus: Bus, database: Database, projection: Consumer, journal: Journal) -> None:
    """Fails unless a replay brings all events into the projection again."""
    await replay(database, bus, projection.name)
    await until(lambda: _whole(journal), 10)


async def _whole(journal: Journal) -> bool:
    return len(await journal.rows.find()) == STEPS


async def test_a_cursor_that_is_on_its_way_to_the_database_is_forgotten_too(
    bus: Bus, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, write, reached, go_on = new_project(), Cursors._write, asyncio.Event(), asyncio.Event()
    journal = Journal(database, project)

    async def late(self: Cursors, batch: Any) -> None:
        if any(project in new.resource and new.sequence == STEPS for _, new, _ in batch):
            reached.set()
            await go_on.wait()
        await write(self, batch)

    monkeypatch.setattr(Cursors, "_write", late)
    await emitted(bus, database, project)
    projection = consumer_of(bus, database, journal, ack_wait=5.0)
    async with running(projection.run()):
        await reached.wait()
        assert len(journal.told) == STEPS
        reset = asyncio.create_task(projection.reset(journal.rows.drop))
        await asyncio.wait([reset], timeout=0.5)
        go_on.set()
        await reset
        await rebuilt(bus, database, projection, journal)


async def test_an_event_that_is_being_applied_is_applied_again(bus: Bus, database: Database) -> None:
    project, applied, go_on = new_project(), asyncio.Event(), asyncio.Event()
    journal = Journal(database, project)
    handle = journal.handle

    async def slow(event: Event) -> None:
        await handle(event)
        if event.project == project and not go_on.is_set():
            applied.set()
            await go_on.wait()

    await emitted(bus, database, project)
    projection = consumer_of(bus, database, journal, ack_wait=5.0)
    projection._handler = slow
    async with running(projection.run()):
        await applied.wait()
        reset = asyncio.create_task(projection.reset(journal.rows.drop))
        await asyncio.wait([reset], timeout=0.5)
        go_on.set()
        await reset
        await rebuilt(bus, database, projection, journal)
        # What was in work came again from the stream, and nothing is held for ever.
        await until(lambda: not projection._held, 15)


async def test_a_death_at_any_write_of_a_reset_leaves_nothing_that_a_replay_cannot_mend(
    nats: object, bus: Bus, mongodb_uri: str
) -> None:
    k, injector = 0, Injector(0, Fault.DIE_BEFORE)
    while k == 0 or injector.fired:
        k += 1
        injector = Injector(k, Fault.DIE_BEFORE)
        async with fresh(mongodb_uri) as database:
            project = new_project()
            journal = Journal(database, project)
            await emitted(bus, database, project)
            projection = consumer_of(bus, database, journal)
            async with running(projection.run()):
                await until(lambda i=journal: _whole(i))  # type: ignore[misc]
            with injected(injector):
                reset = asyncio.create_task(projection.reset(journal.rows.drop))
                death = asyncio.create_task(injector.died.wait())
                await asyncio.wait([reset, death], return_when=asyncio.FIRST_COMPLETED)
                for task in (reset, death):
                    task.cancel()
                await asyncio.gather(reset, death, return_exceptions=True)
            history = EventLog(database).of_resource
            again = consumer_of(bus, database, journal, fetch_history=history)
            async with running(again.run()):
                await rebuilt(bus, database, again, journal)
    assert k > 2
