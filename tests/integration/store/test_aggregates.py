"""Aggregates against the real server: what comes back, who wins, and what is remembered."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from penstock.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidArgument, NotFound
from penstock.store import Aggregates, Cause, Database, current_cause
from tests.integration.store.sample import Attempt, Happened, Run, State, name, runs_in

MOMENT = datetime(2026, 11, 20, 12, 0, 0, 123000, tzinfo=UTC)


async def test_a_value_comes_back_as_it_was_stored(database: Database) -> None:
    runs = await runs_in(database)
    value = Run(
        "p",
        State.RUNNING,
        2**53 + 1,
        MOMENT,
        {"lr": 0.1, "a.b": 1, "$c": True, "100%": None, "nan": "NaN", "e": "é\u2028"},
        (Attempt(1, MOMENT), Attempt(2)),
        "best",
    )
    created = await runs.create(name("a"), value)
    assert (created.value, created.version, created.sequence, created.etag) == (value, 1, 0, "1")
    assert await runs.get(name("a")) == created


async def test_an_absent_aggregate_is_not_found(database: Database) -> None:
    runs = await runs_in(database)
    with pytest.raises(NotFound, match="projects/p/runs/a does not exist"):
        await runs.get(name("a"))
    with pytest.raises(NotFound):
        await runs.change(name("a"), lambda run: run)


async def test_a_second_create_is_refused_unless_it_is_the_same_request(database: Database) -> None:
    runs = await runs_in(database)
    first = await runs.create(name("a"), Run("p"), request_id="r1")
    await runs.change(name("a"), lambda run: replace(run, steps=1))
    again = await runs.create(name("a"), Run("p", steps=99), request_id="r1")
    assert (again.version, again.value.steps) == (first.version + 1, 1)
    with pytest.raises(AlreadyExists):
        await runs.create(name("a"), Run("p"), request_id="r2")
    with pytest.raises(AlreadyExists):
        await runs.create(name("a"), Run("p"))


async def test_a_stale_save_is_refused(database: Database) -> None:
    runs = await runs_in(database)
    stale = await runs.create(name("a"), Run("p"))
    saved = await runs.save(stale, replace(stale.value, steps=1))
    assert saved == await runs.get(name("a"))
    with pytest.raises(Conflict):
        await runs.save(stale, replace(stale.value, steps=2))
    assert (await runs.get(name("a"))).value.steps == 1


async def test_a_change_with_a_seen_request_id_is_not_applied_again(database: Database) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"))
    for _ in range(3):
        stored = await runs.change(name("a"), lambda run: replace(run, steps=run.steps + 1), request_id="r1")
        assert (stored.value.steps, stored.version) == (1, 2)


async def test_returning_the_same_value_writes_nothing(database: Database) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"))
    assert (await runs.change(name("a"), lambda run: run)).version == 1


async def test_an_error_of_the_transition_passes_through_and_changes_nothing(database: Database) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"))

    def refuse(run: Run) -> Run:
        raise FailedPrecondition("no")

    with pytest.raises(FailedPrecondition):
        await runs.change(name("a"), refuse)
    assert (await runs.get(name("a"))).version == 1


async def test_a_unique_property_is_taken_once_and_freed_by_deletion(
    database: Database, frees_unique_values: bool
) -> None:
    runs = await runs_in(database)
    first = await runs.create(name("a"), Run("p", alias="best"))
    other = await runs.create(name("b"), Run("p"))
    with pytest.raises(AlreadyExists, match="same alias"):
        await runs.create(name("c"), Run("p", alias="best"))
    with pytest.raises(AlreadyExists, match="same alias"):
        await runs.save(other, replace(other.value, alias="best"))
    await runs.delete(first)
    if frees_unique_values:
        await runs.create(name("c"), Run("p", alias="best"))
    else:
        with pytest.raises(AlreadyExists):
            await runs.create(name("c"), Run("p", alias="best"))


async def test_a_tombstone_is_not_found_and_keeps_its_sequence(database: Database) -> None:
    runs = await runs_in(database)
    stored = await runs.create(name("a"), Run("p"), [Happened(), Happened()])
    await runs.delete(stored, [Happened()])
    with pytest.raises(NotFound):
        await runs.get(name("a"))
    assert await runs.find(eq={"project": "p"}) == []
    assert await runs.find(limit=10) == []
    again = await runs.create(name("a"), Run("p"), [Happened()])
    assert (again.sequence, again.version) == (4, 3)
    [pending] = await runs.pending()
    assert [json.loads(entry)["sequence"] for entry in pending.entries] == [1, 2, 3, 4]


async def test_events_are_written_with_their_change_and_its_cause(database: Database) -> None:
    runs = await runs_in(database)
    woken: list[int] = []
    runs.on_events(lambda pending: woken.append(pending.sequence))
    await runs.create(name("a"), Run("p"), [Happened(data={"a.b": 1, "$x": [{"y": None}]})])
    token = current_cause.set(Cause("chain", "cause", "00-1-2-01"))
    try:
        await runs.change(name("a"), lambda run: (replace(run, steps=1), [Happened("training.run.started")]))
    finally:
        current_cause.reset(token)
    [pending] = await runs.pending()
    first, second = map(json.loads, pending.entries)
    assert (first["id"], first["correlation_id"], first["causation_id"]) == (f"{name('a')}@1", f"{name('a')}@1", "")
    assert first["data"] == {"a.b": 1, "$x": [{"y": None}]}
    assert (second["type"], second["sequence"]) == ("training.run.started", 2)
    assert (second["correlation_id"], second["causation_id"], second["traceparent"]) == ("chain", "cause", "00-1-2-01")
    assert woken == [1, 2]


async def test_an_aggregate_with_events_must_be_named_like_a_resource(database: Database) -> None:
    runs = await runs_in(database)
    with pytest.raises(InvalidArgument):
        await runs.create("a", Run("p"), [Happened()])


async def test_an_event_too_large_to_be_published_is_refused_with_its_change(database: Database) -> None:
    runs = await runs_in(database)
    with pytest.raises(InvalidArgument, match="too large"):
        await runs.create(name("a"), Run("p"), [Happened(data={"x": "y" * 2_000_000})])
    with pytest.raises(NotFound):
        await runs.get(name("a"))


async def test_trimming_leaves_events_that_came_meanwhile(database: Database) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"), [Happened()])
    await runs.create(name("b"), Run("p"), [Happened()])
    seen = await runs.pending()
    assert len(seen) == 2
    await runs.change(name("a"), lambda run: (replace(run, steps=1), [Happened()]))
    await runs.trim(seen)
    [left] = await runs.pending()
    assert (left.id, left.sequence) == (name("a"), 2)
    assert [json.loads(entry)["sequence"] for entry in left.entries] == [2]
    await runs.trim([left])
    assert await runs.pending() == []
    # A trim is not a change: whoever read the aggregate before may still save it.
    assert (await runs.get(name("a"))).version == 2


async def test_of_many_concurrent_changes_none_is_lost(database: Database) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"))

    async def add() -> None:
        await runs.change(name("a"), lambda run: (replace(run, steps=run.steps + 1), [Happened()]))

    await asyncio.gather(*(add() for _ in range(50)))
    stored = await runs.get(name("a"))
    assert (stored.value.steps, stored.version, stored.sequence) == (50, 51, 50)


async def test_two_processes_changes_are_both_there(database: Database) -> None:
    """The in-process lock is only for speed: another process has its own."""
    mine, others = await runs_in(database), await runs_in(database)
    await mine.create(name("a"), Run("p"))

    async def add(runs: Aggregates[Run]) -> None:
        for _ in range(10):
            await runs.change(name("a"), lambda run: replace(run, steps=run.steps + 1))

    await asyncio.gather(add(mine), add(others))
    assert (await mine.get(name("a"))).value.steps == 20


async def test_get_many_answers_those_that_exist(database: Database) -> None:
    runs = await runs_in(database)
    for id in ("a", "b"):
        await runs.create(name(id), Run("p"))
    found = await runs.get_many([name("a"), name("b"), name("c"), *map(name, (f"x{n}" for n in range(150)))])
    assert sorted(found) == [name("a"), name("b")]


async def test_ids_that_look_like_dates_are_told_apart(database: Database) -> None:
    runs = await runs_in(database)
    ids = ["2026-11-20", "2026-11-20x", "2026-11-20T12:00:00.001Z", "2026-11-20T12:00:00.002Z", "~2026-11-20", " 1"]
    for n, id in enumerate(ids):
        await runs.create(id, Run(id, steps=n))
    for n, id in enumerate(ids):
        assert (await runs.get(id)).value.steps == n
        stored = await runs.change(id, lambda run: replace(run, steps=run.steps + 100))
        assert (stored.id, stored.value.steps) == (id, n + 100)
        assert [found.id for found in await runs.find(eq={"project": id})] == [id]
    assert [stored.id for stored in await runs.find(limit=10)] == sorted(ids)


async def test_a_document_too_large_is_refused(database: Database) -> None:
    runs = await runs_in(database)
    with pytest.raises(InvalidArgument, match="too large"):
        await runs.create(name("a"), Run("p" * (17 * 2**20)))
