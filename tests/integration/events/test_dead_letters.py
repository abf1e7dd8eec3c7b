"""Poison messages: kept with their error, holding up their own resource only, retried or dropped by an operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock.errors import FailedPrecondition, NotFound, Unavailable
from penstock.events import Bus, DeadLetters, Event, LetterState
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


async def emitted(database: Database, bus: Bus, project: str, steps: int = 4) -> tuple[Aggregates[Run], list[str]]:
    """Two runs with their events, published."""
    runs = await runs_in(database)
    names = [f"projects/{project}/runs/{id}" for id in ("a", "b")]
    for name in names:
        await runs.create(name, Run(project), [queued(name)])
        for _ in range(steps - 1):
            await step(runs, name)
    await relay_of(bus, database, runs).once()
    return runs, names


def poison(journal: Journal, name: str, *sequences: int) -> dict[int, int]:
    """Let the handler fail with some events; returns how often it did."""
    failures = dict.fromkeys(sequences, 0)

    def refuse(event: Event) -> Exception | None:
        if event.subject != name or event.sequence not in failures:
            return None
        failures[event.sequence] += 1
        return ValueError("poison")

    journal.refuse = refuse
    return failures


async def dead(letters: DeadLetters, count: int) -> None:
    await until(lambda: _count(letters, count))


async def _count(letters: DeadLetters, count: int) -> bool:
    found = await letters.list()
    return len(found) == count and all(letter.state is LetterState.DEAD for letter in found)


async def test_poison_parks_its_own_resource_only_and_can_be_retried(bus: Bus, database: Database) -> None:
    project, letters = new_project(), DeadLetters(database)
    journal = Journal(database, project)
    runs, (bad, good) = await emitted(database, bus, project)
    failures = poison(journal, bad, 2)
    consumer = consumer_of(bus, database, journal)
    async with running(relay_of(bus, database, runs).run(), consumer.run()):
        await dead(letters, 1)
        await until(lambda: journal.sequences(good) == [1, 2, 3, 4])
        await step(runs, bad)  # comes while its resource is parked
        await step(runs, good)
        await until(lambda: journal.sequences(good) == [1, 2, 3, 4, 5])
        assert journal.sequences(bad) == [1] and failures == {2: 5}

        [letter] = await letters.list()
        assert (letter.resource, letter.event.sequence, letter.attempts) == (bad, 2, 5)
        assert (letter.error, letter.consumer) == ("ValueError: poison", consumer.name)
        assert letter.event.data == {"run": bad, "attempt": 1} and "/" not in letter.id

        await letters.retry(letter.id)  # in vain
        consumer.wake()
        await until(lambda: failures[2] == 6)
        await dead(letters, 1)
        assert (await letters.get(letter.id)).attempts == 6

        journal.refuse = lambda event: None
        await letters.retry(letter.id)
        consumer.wake()
        await until(lambda: journal.sequences(bad) == [1, 2, 3, 4, 5])
        assert await letters.list() == []
        await step(runs, bad)
        await until(lambda: journal.sequences(bad) == [1, 2, 3, 4, 5, 6])
    with pytest.raises(NotFound):
        await letters.retry(letter.id)


async def test_a_dropped_letter_is_passed_over(bus: Bus, database: Database) -> None:
    project, letters = new_project(), DeadLetters(database)
    journal = Journal(database, project)
    _, (bad, _) = await emitted(database, bus, project)
    poison(journal, bad, 2, 4)
    consumer = consumer_of(bus, database, journal)
    async with running(consumer.run()):
        await dead(letters, 1)
        [letter] = await letters.list()
        await letters.drop(letter.id)
        with pytest.raises(FailedPrecondition):
            await letters.retry(letter.id)
        consumer.wake()
        await until(lambda: journal.sequences(bad) == [1, 3])
        await dead(letters, 1)
        [letter] = await letters.list()
        assert letter.event.sequence == 4


async def test_a_decision_is_acted_on_after_a_restart(bus: Bus, database: Database) -> None:
    project, letters = new_project(), DeadLetters(database)
    journal = Journal(database, project)
    _, (bad, _) = await emitted(database, bus, project)
    poison(journal, bad, 1)
    async with running(consumer_of(bus, database, journal).run()):
        await dead(letters, 1)
    [letter] = await letters.list()
    await letters.retry(letter.id)
    journal.refuse = lambda event: None
    async with running(consumer_of(bus, database, journal).run()):
        await until(lambda: journal.sequences(bad) == [1, 2, 3, 4])


async def test_failures_are_counted_over_restarts(bus: Bus, database: Database) -> None:
    """An event that kills its process at each attempt would otherwise do so for ever."""
    project, letters = new_project(), DeadLetters(database)
    journal = Journal(database, project)
    _, (bad, _) = await emitted(database, bus, project, steps=1)
    failures = poison(journal, bad, 1)
    reached: Callable[[int], Callable[[], bool]] = lambda n: lambda: failures[1] >= n  # noqa: E731
    for life in range(1, 5):
        async with running(consumer_of(bus, database, journal, retry_delays=(60,)).run()):
            await until(reached(life))
            await until(lambda n=life: _failures(database, journal, bad, n))  # type: ignore[misc]
    async with running(consumer_of(bus, database, journal, retry_delays=(60,)).run()):
        await dead(letters, 1)
    assert failures == {1: 5}


async def _failures(database: Database, journal: Journal, resource: str, count: int) -> bool:
    row = await database.collection("cursors").find_one({"_id": f"journal-{journal.project}/{resource}"})
    return row is not None and row["failures"] == count


async def test_what_is_unavailable_is_waited_for_and_is_no_poison(bus: Bus, database: Database) -> None:
    project, letters = new_project(), DeadLetters(database)
    journal = Journal(database, project)
    _, (name, _) = await emitted(database, bus, project)
    attempts: list[int] = []

    def refuse(event: Event) -> Exception | None:
        if event.subject == name and len(attempts) < 6:
            attempts.append(event.sequence)
            return Unavailable("not now")
        return None

    journal.refuse = refuse
    # The delays add up to some seconds for six refusals; two are enough to tell.
    async with running(consumer_of(bus, database, journal).run()):
        await until(lambda: len(attempts) >= 3)
        attempts.extend([0] * 6)
        await until(lambda: journal.sequences(name) == [1, 2, 3, 4])
    assert await letters.list() == []


async def test_a_message_that_is_no_event_is_kept_and_passed_over(bus: Bus, database: Database) -> None:
    project, letters = new_project(), DeadLetters(database)
    journal = Journal(database, project)
    await bus.send(f"penstock.{project}.training.run.a.queued", b"{", {"ce-id": "x"})
    _, (name, _) = await emitted(database, bus, project)
    async with running(consumer_of(bus, database, journal).run()):
        await until(lambda: journal.sequences(name) == [1, 2, 3, 4])
    found = [letter for letter in await letters.list() if project in letter.event.id]
    assert len(found) == 1 and found[0].raw is not None and found[0].raw.body == b"{"
