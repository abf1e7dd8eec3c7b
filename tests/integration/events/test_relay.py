"""What the relay makes of writes whose answers come late, in the other order, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from pymongo.errors import AutoReconnect

from penstock.events import Bus, EventLog
from penstock.events import bus as bus_module
from penstock.events import relay as relay_module
from penstock.events.bus import MESSAGE_ID
from penstock.store import Aggregates, Database, Pending
from penstock.store import database as database_module
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

T = TypeVar("T")


@dataclass
class FirstWrite:
    """Holds up the answer to the first write of a task, which is carried out at once; the others pass."""

    task: asyncio.Task[Any] | None = None
    lost: bool = False  # the answer is an error in the end, so that its outcome is looked up
    done: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)


@contextmanager
def late(first: FirstWrite) -> Iterator[None]:
    write = database_module.write

    async def slow(operation: Callable[[], Awaitable[T]]) -> T:
        result = await write(operation)
        if asyncio.current_task() is first.task and not first.done.is_set():
            first.done.set()
            await first.answered.wait()
            if first.lost:
                raise AutoReconnect("the connection is gone")
        return result

    database_module.write = slow
    try:
        yield
    finally:
        database_module.write = write


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sweep but the first, and those that something asks for."""
    monkeypatch.setattr(relay_module, "SWEEP", (60.0, 60.0))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of what is published, in order, each once."""
    publish, seen = bus_module.publish, list[str]()

    async def noting(context: Any, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
        await publish(context, subject, body, headers)
        if headers[MESSAGE_ID] not in seen:
            seen.append(headers[MESSAGE_ID])

    monkeypatch.setattr(bus_module, "publish", noting)
    return seen


async def overtaken(
    bus: Bus, database: Database, published: list[str], first: FirstWrite, sequence: int
) -> tuple[str, list[int]]:
    """A restarted process writes event `sequence` of a run, and is told so after event `sequence + 1` is published.

    No sweep is due meanwhile. Returns the name of the run, and what a consumer was told of it in the end.
    """
    project = new_project()
    name, other = f"projects/{project}/runs/a", f"projects/{project}/runs/b"
    journal, earlier = Journal(database, project), await runs_in(database)
    if sequence > 1:
        await earlier.create(name, Run(project), [queued(name)])
        await relay_of(bus, database, earlier).once()
        await until(lambda: _empty(earlier))
    runs = await runs_in(database)
    relay = relay_of(bus, database, runs)
    async with running(relay.run(), consumer_of(bus, database, journal).run()):
        await runs.create(other, Run(project), [queued(other)])
        await journal.count(sequence)  # so the relay's first sweep is over
        await until(lambda: _empty(runs))
        published.clear()
        with late(first):
            writing = step(runs, name) if sequence > 1 else runs.create(name, Run(project), [queued(name)])
            first.task = asyncio.create_task(writing)
            await first.done.wait()
            # Not through the same lock: any other request, or reconciler, that has read what was just written.
            await step(await _sharing(relay, runs), name)
            await until(lambda: f"{name}@{sequence + 1}" in published)
            first.answered.set()
            await first.task
        await until(lambda: _empty(runs), 15)
        await until(lambda: len(journal.sequences(name)) == sequence + 1, 5)
    return name, journal.sequences(name)


async def _sharing(relay: relay_module.Relay, runs: Aggregates[Run]) -> Aggregates[Run]:
    """The same aggregates with locks of their own, handing over to the same relay."""
    others = await runs_in(runs.database)
    others.on_events(relay._outboxes[0]._hand_over)
    return others


async def _empty(runs: Aggregates[Run]) -> bool:
    return not any(one.entries for one in await runs.pending())


@pytest.mark.parametrize("sequence", [1, 2])
@pytest.mark.parametrize("lost", [False, True])
async def test_an_event_whose_write_is_answered_last_is_neither_lost_nor_late(
    bus: Bus, database: Database, published: list[str], sequence: int, lost: bool
) -> None:
    name, told = await overtaken(bus, database, published, FirstWrite(lost=lost), sequence)
    expected = list(range(1, sequence + 2))
    assert told == expected
    assert published == [f"{name}@{n}" for n in expected[sequence - 1 :]]
    assert [event.sequence for event in await EventLog(database).of_resource(name)] == expected


async def test_without_asking_what_comes_before_it_an_event_is_published_too_early_but_none_is_lost(
    bus: Bus, database: Database, published: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FirstWrite()

    def trusting(self: Any) -> list[Pending]:
        fresh, self._fresh = self._fresh, []
        early = [one for one in fresh if one.sequence > self._published.get(one.id, 0)]
        self.behind = first.answered.is_set() and len(early) < len(fresh)
        return early

    monkeypatch.setattr(relay_module._Outbox, "take", trusting)
    name, told = await overtaken(bus, database, published, first, 2)
    assert published == [f"{name}@3", f"{name}@2"]
    assert told == [1, 2, 3]


async def test_what_is_created_and_what_is_known_needs_no_sweep(
    bus: Bus, database: Database, published: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, sweeps = await runs_in(database), 0
    relay, once = relay_of(bus, database, runs), relay_module.Relay.once

    async def counting(self: relay_module.Relay) -> int:
        nonlocal sweeps
        found = await once(self)
        sweeps += 1
        return found

    monkeypatch.setattr(relay_module.Relay, "once", counting)
    project = new_project()
    names = [f"projects/{project}/runs/{id}" for id in ("a", "b", "c")]
    async with running(relay.run()):
        await until(lambda: sweeps == 1)
        for name in names:
            await runs.create(name, Run(project), [queued(name)])
        for _ in range(3):
            await asyncio.gather(*(step(runs, name) for name in names))
        await until(lambda: len(published) == 12)
        await until(lambda: _empty(runs))
    assert sweeps == 1
    # A restarted process looks once, for all resources together that it did not know.
    runs = await runs_in(database)
    async with running(relay_of(bus, database, runs).run()):
        await until(lambda: sweeps == 2)
        for n in range(3):
            await asyncio.gather(*(step(runs, name) for name in names))
            await until(lambda n=n: len(published) == 12 + 3 * (n + 1))  # type: ignore[misc]
        await until(lambda: _empty(runs))
    assert 3 <= sweeps <= 2 + len(names)
    for name in names:
        assert [id for id in published if id.startswith(name)] == [f"{name}@{n}" for n in range(1, 8)]
