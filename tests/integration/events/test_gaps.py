"""What a consumer does when the stream has not all: gaps, repeats, disorder, a late beginning, a lost consumer."""

from __future__ import annotations

import asyncio
import random

from penstock.events import Bus, Event, EventLog, Relay, replay
from penstock.events.bus import MESSAGE_ID
from penstock.events.envelope import encode, from_entry
from penstock.events.subjects import STREAM, subject_of
from penstock.store import Aggregates, Database
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


async def stored(database: Database, name: str, project: str, steps: int) -> tuple[Aggregates[Run], list[Event]]:
    """A run with events in its service's log, none of them in the stream."""
    runs = await runs_in(database)
    await runs.create(name, Run(project), [queued(name)])
    for _ in range(steps - 1):
        await step(runs, name)
    [pending] = await runs.pending()
    events = [from_entry(entry) for entry in pending.entries]
    await EventLog(database).append([(from_entry(entry), entry) for entry in pending.entries])
    await runs.trim([pending])
    return runs, events


async def send(bus: Bus, event: Event, copy: object = "") -> None:
    headers, body = encode(event)
    await bus.send(subject_of(event.subject, event.type), body, {**headers, MESSAGE_ID: f"{event.id}{copy}"})


async def test_a_gap_is_filled_from_the_owner(bus: Bus, database: Database) -> None:
    project = new_project()
    name = f"projects/{project}/runs/a"
    _, events = await stored(database, name, project, 6)
    journal, asked = Journal(database, project), []

    async def history(resource: str, after: int) -> list[Event]:
        asked.append((resource, after))
        return await EventLog(database).of_resource(resource, after, limit=2)

    for event in (events[0], events[5]):
        await send(bus, event)
    async with running(consumer_of(bus, database, journal, fetch_history=history).run()):
        await journal.count(6)
    assert journal.sequences(name) == [1, 2, 3, 4, 5, 6]
    assert asked == [(name, 1), (name, 3)]


async def test_a_projection_begins_at_the_beginning_even_if_the_stream_does_not(bus: Bus, database: Database) -> None:
    project = new_project()
    name = f"projects/{project}/runs/a"
    _, events = await stored(database, name, project, 4)
    journal = Journal(database, project)
    await send(bus, events[3])
    async with running(consumer_of(bus, database, journal, fetch_history=EventLog(database).of_resource).run()):
        await journal.count(4)
    assert journal.sequences(name) == [1, 2, 3, 4]


async def test_a_consumer_with_effects_applies_nothing_from_before_it_was_made(bus: Bus, database: Database) -> None:
    project = new_project()
    name = f"projects/{project}/runs/a"
    runs, events = await stored(database, name, project, 4)
    for event in events:
        await send(bus, event)
    journal = Journal(database, project)
    options = {"effects": True, "fetch_history": EventLog(database).of_resource}
    async with running(consumer_of(bus, database, journal, **options).run(), relay_of(bus, database, runs).run()):
        await until(lambda: _made(database, journal))
        await step(runs, name)
        await journal.count(1)
        await step(runs, name)
        await journal.count(2)
    assert journal.sequences(name) == [5, 6]


async def _made(database: Database, journal: Journal) -> bool:
    return await database.collection("consumers").find_one({"_id": f"journal-{journal.project}"}) is not None


async def test_repeats_and_disorder_are_put_right(bus: Bus, database: Database) -> None:
    project = new_project()
    names = [f"projects/{project}/runs/r{n}" for n in range(6)]
    sent = []
    for name in names:
        _, events = await stored(database, name, project, 6)
        sent += [(event, copy) for event in events for copy in range(2)]
    random.Random(7).shuffle(sent)
    journal = Journal(database, project)
    async with running(consumer_of(bus, database, journal, patience=60).run()):
        for event, copy in sent:
            await send(bus, event, copy)
        await journal.count(36)
        await asyncio.sleep(0.3)
    for name in names:
        assert journal.sequences(name) == [1, 2, 3, 4, 5, 6]


async def test_a_slow_resource_holds_up_nobody_and_is_not_delivered_again(bus: Bus, database: Database) -> None:
    project = new_project()
    slow, quick = (f"projects/{project}/runs/{id}" for id in ("slow", "quick"))
    for name in (slow, quick):
        _, events = await stored(database, name, project, 3)
        for event in events:
            await send(bus, event)
    journal = Journal(database, project)
    handle, calls, released = journal.handle, [], asyncio.Event()

    async def handler(event: Event) -> None:
        if event.subject == slow:
            calls.append(event.sequence)
            await released.wait()
        await handle(event)

    consumer = consumer_of(bus, database, journal, ack_wait=0.6)
    consumer._handler = handler
    async with running(consumer.run()):
        await until(lambda: journal.sequences(quick) == [1, 2, 3])
        await asyncio.sleep(1.2)  # longer than the server waits for an acknowledgement
        released.set()
        await until(lambda: journal.sequences(slow) == [1, 2, 3])
    assert calls == [1, 2, 3]


async def test_a_consumer_that_the_server_lost_goes_on(bus: Bus, database: Database) -> None:
    project = new_project()
    name = f"projects/{project}/runs/a"
    runs, journal = await runs_in(database), Journal(database, project)
    async with running(relay_of(bus, database, runs).run(), consumer_of(bus, database, journal).run()):
        await runs.create(name, Run(project), [queued(name)])
        await journal.count(1)
        await bus.context.delete_consumer(STREAM, f"journal-{project}")
        await step(runs, name)
        await journal.count(2)
    assert journal.sequences(name) == [1, 2]


async def test_a_replay_rebuilds_a_projection_and_reaches_nobody_else(bus: Bus, database: Database) -> None:
    project = new_project()
    names = [f"projects/{project}/runs/{id}" for id in ("a", "b")]
    runs = await runs_in(database)
    for name in names:
        await runs.create(name, Run(project), [queued(name)])
        for _ in range(3):
            await step(runs, name)
    await Relay(database, [runs], bus).once()
    journal, other = Journal(database, project), Journal(database, project)
    other.rows = Journal(database, project).rows
    projection = consumer_of(bus, database, journal)
    async with running(projection.run(), consumer_of(bus, database, other, name=f"other-{project}").run()):
        await journal.count(8)
        await other.count(8)

    async def clear() -> None:
        journal.told.clear()

    await projection.reset(clear)
    async with running(projection.run(), consumer_of(bus, database, other, name=f"other-{project}").run()):
        assert await replay(database, bus, projection.name) == 8
        await journal.count(8)
        await asyncio.sleep(0.3)
    assert all(journal.sequences(name) == [1, 2, 3, 4] for name in names)
    assert len(other.told) == 8


async def test_two_processes_of_one_consumer_keep_the_order(bus: Bus, database: Database) -> None:
    """Each gets some of a resource's events: what is ahead of the other's is refused until that is applied."""
    project = new_project()
    names = [f"projects/{project}/runs/r{n}" for n in range(5)]
    runs, journal = await runs_in(database), Journal(database, project)
    disorder: list[str] = []
    handle = journal.handle

    async def handler(event: Event) -> None:
        if event.project == project and event.sequence > 1:
            before = await journal.rows.get(f"{event.subject}@{event.sequence - 1}")
            if before is None:
                disorder.append(event.id)
        await handle(event)

    consumers = [consumer_of(bus, database, journal, ack_wait=5.0) for _ in range(2)]
    for consumer in consumers:
        consumer._handler = handler
    async with running(relay_of(bus, database, runs).run(), *(consumer.run() for consumer in consumers)):
        await asyncio.gather(*(runs.create(name, Run(project), [queued(name)]) for name in names))
        for _ in range(7):
            await asyncio.gather(*(step(runs, name) for name in names))
        await journal.count(40)
        await asyncio.sleep(0.3)
    assert disorder == []
    assert sorted(event.id for event in journal.told) == sorted(f"{name}@{n}" for name in names for n in range(1, 9))


async def test_a_consumer_that_was_stopped_in_its_work_can_run_again(bus: Bus, database: Database) -> None:
    project = new_project()
    name = f"projects/{project}/runs/a"
    _, events = await stored(database, name, project, 3)
    for event in events:
        await send(bus, event)
    journal, entered = Journal(database, project), asyncio.Event()
    handle = journal.handle

    async def stuck(event: Event) -> None:
        if event.project == project:
            entered.set()
            await asyncio.sleep(60)

    consumer = consumer_of(bus, database, journal)
    consumer._handler = stuck
    async with running(consumer.run()):
        await entered.wait()
    consumer._handler = handle
    async with running(consumer.run()):
        await journal.count(3)
    assert journal.sequences(name) == [1, 2, 3]
