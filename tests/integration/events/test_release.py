"""The way out of a dead letter, interrupted at any point: nothing waits for ever, nothing is applied out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from penstock.errors import Unavailable
from penstock.events import Bus, DeadLetters, LetterState
from penstock.events.cursors import Cursor, Cursors
from penstock.store import Aggregates, Database
from tests.integration.events.faults import Fault, Injector, injected
from tests.integration.events.test_dead_letters import dead, emitted, poison
from tests.integration.events.test_kth_write import fresh
from tests.integration.events.world import (
    Journal,
    Run,
    consumer_of,
    new_project,
    relay_of,
    running,
    step,
    until,
)


@dataclass
class Parked:
    """A consumer's resource with a dead letter of event 2, behind which event 3 waits; its handler is mended."""

    bus: Bus
    database: Database
    runs: Aggregates[Run]
    name: str
    journal: Journal

    @classmethod
    async def prepare(cls, bus: Bus, database: Database) -> Parked:
        project = new_project()
        journal = Journal(database, project)
        runs, (bad, _) = await emitted(database, bus, project, steps=3)
        poison(journal, bad, 2)
        parked = cls(bus, database, runs, bad, journal)
        async with running(consumer_of(bus, database, journal).run()):
            await dead(parked.letters, 1)
            await until(lambda: _is(parked.cursor, Cursor(bad, 3, parked=True, stored=True)))
        journal.refuse = lambda event: None
        return parked

    @property
    def letters(self) -> DeadLetters:
        return DeadLetters(self.database)

    @property
    def cursors(self) -> Cursors:
        return Cursors(self.database, f"journal-{self.journal.project}")

    async def cursor(self) -> Cursor:
        return (await self.cursors.load([self.name]))[self.name]

    async def free(self) -> bool:
        """Whether it goes on, and no letter is left."""
        left = await self.letters.of_resource(f"journal-{self.journal.project}", self.name)
        return not left and not (await self.cursor()).parked

    async def decide(self, decision: LetterState) -> None:
        [letter] = await self.letters.list()
        await (self.letters.retry if decision is LetterState.RETRY else self.letters.drop)(letter.id)

    async def emit(self) -> None:
        await step(self.runs, self.name)
        await relay_of(self.bus, self.database, self.runs).once()


async def _is(found: Callable[[], Awaitable[Cursor]], wanted: Cursor) -> bool:
    return await found() == wanted


@pytest.mark.parametrize("decision", [LetterState.RETRY, LetterState.DROP])
async def test_a_death_at_any_write_of_a_release_leaves_nothing_parked(
    nats: object, bus: Bus, mongodb_uri: str, decision: LetterState
) -> None:
    k, injector = 0, Injector(0, Fault.DIE_BEFORE)
    while k == 0 or injector.fired:
        k += 1
        injector = Injector(k, Fault.DIE_BEFORE)
        async with fresh(mongodb_uri) as database:
            parked = await Parked.prepare(bus, database)
            await parked.decide(decision)
            with injected(injector):
                async with running(consumer_of(bus, database, parked.journal).run()):
                    await until(lambda i=injector, p=parked: _over(i, p))  # type: ignore[misc]
            async with running(consumer_of(bus, database, parked.journal).run()):
                await until(parked.free, 8)
                await parked.emit()
                await until(lambda p=parked: p.journal.sequences(p.name)[-1] == 4)  # type: ignore[misc]
        told = parked.journal.sequences(parked.name)
        assert told == sorted(told), f"out of order with a death at write {k}"
        assert sorted(set(told)) == ([1, 2, 3, 4] if decision is LetterState.RETRY else [1, 3, 4])
    assert k >= 5  # at least the effect of event 3, the cursor, and two letters that go


async def _over(injector: Injector, parked: Parked) -> bool:
    return injector.died.is_set() or await parked.free()


async def test_a_release_that_the_database_stopped_goes_on_without_a_restart(
    bus: Bus, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    parked, move, stopped = await Parked.prepare(bus, database), Cursors.move, asyncio.Event()

    async def failing(self: Cursors, old: Cursor, new: Cursor) -> Cursor:
        if old.parked and not new.parked and not stopped.is_set():
            stopped.set()
            raise Unavailable("not now")
        return await move(self, old, new)

    monkeypatch.setattr(Cursors, "move", failing)
    await parked.decide(LetterState.RETRY)
    async with running(consumer_of(bus, database, parked.journal).run()):
        await until(parked.free, 15)
    assert stopped.is_set()
    assert parked.journal.sequences(parked.name) == [1, 2, 3, 3]  # again, since it is not known to be done


async def test_a_resource_that_is_parked_behind_no_letter_goes_on_with_its_next_event(
    bus: Bus, database: Database
) -> None:
    """As another process leaves it that stores its cursor after this one has released the resource."""
    parked = await Parked.prepare(bus, database)
    await parked.decide(LetterState.DROP)
    async with running(consumer_of(bus, database, parked.journal).run()):
        await until(parked.free)
        cursors, cursor = parked.cursors, await parked.cursor()
        await cursors.move(cursor, replace(cursor, parked=True))
    async with running(consumer_of(bus, database, parked.journal).run()):
        await parked.emit()
        await until(lambda: parked.journal.sequences(parked.name) == [1, 3, 4], 10)
        await until(parked.free)


async def test_a_letter_that_was_done_with_is_not_applied_after_later_events(bus: Bus, database: Database) -> None:
    """As a process leaves it that dies before it removes the last letter, when another has gone on already."""
    parked = await Parked.prepare(bus, database)
    cursors, cursor = parked.cursors, await parked.cursor()
    await cursors.move(cursor, replace(cursor, parked=False))
    await parked.decide(LetterState.RETRY)
    async with running(consumer_of(bus, database, parked.journal).run()):
        await parked.emit()
        await until(lambda: parked.journal.sequences(parked.name) == [1, 4], 10)
        await until(parked.free, 10)
    assert parked.journal.sequences(parked.name) == [1, 4]
