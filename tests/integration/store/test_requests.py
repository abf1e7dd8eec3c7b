"""Requests are known for 24 hours, whatever came after them; unknown outcomes are not taken for refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pymongo.errors
import pytest

from penstock.errors import Unavailable
from penstock.store import Aggregates, Database, Rows, now
from penstock.store import database as database_module
from penstock.store import requests as requests_module
from penstock.store.document import WRITES
from penstock.store.requests import KEPT
from tests.integration.store.sample import Run, name, runs_in


def step(run: Run) -> Run:
    return replace(run, steps=run.steps + 1)


async def work(runs: Aggregates[Run], first: int, last: int) -> None:
    for n in range(first, last):
        await runs.change(name("a"), step, request_id=f"r{n}")


async def test_a_request_is_known_whatever_came_after_it(database: Database) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"), request_id="made")
    await runs.create(name("b"), Run("p"))
    await work(runs, 0, 5 * KEPT)
    again = await runs_in(database)  # another process
    await work(again, 0, 5 * KEPT)
    await again.create(name("a"), Run("p"), request_id="made")
    assert (await again.get(name("a"))).value.steps == 5 * KEPT
    await again.change(name("b"), step, request_id="r0")  # of another aggregate
    assert (await again.get(name("b"))).value.steps == 1


async def test_a_document_does_not_grow_with_its_requests(database: Database) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"))
    sizes = []
    for n in range(4):
        await work(runs, n * KEPT, (n + 1) * KEPT)
        document = await database.collection("runs").find_one({"_id": name("a")})
        assert document is not None
        sizes.append(len(document["requests"]))
    assert max(sizes) <= KEPT


async def test_requests_are_forgotten_after_a_day(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"))
    await work(runs, 0, 2 * KEPT)
    beside = Rows(database, "store_requests", indexes=("time",))
    assert await beside.find()
    day = timedelta(hours=24, seconds=1)
    monkeypatch.setattr(requests_module, "now", lambda: now() + day)
    await work(runs, 0, 2 * KEPT)
    assert (await runs.get(name("a"))).value.steps == 4 * KEPT
    times = [row["time"] for row in await beside.find()]
    assert times and min(times) > requests_module._oldest()


async def test_a_deleted_aggregates_requests_are_not_those_of_the_next(database: Database) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"))
    await work(runs, 0, 2 * KEPT)
    await runs.delete(await runs.get(name("a")))
    await runs.create(name("a"), Run("p"))
    await work(runs, 0, 1)
    assert (await runs.get(name("a"))).value.steps == 1


async def test_a_write_cut_off_while_requests_were_moved_loses_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await runs_in(database)
    await runs.create(name("a"), Run("p"))
    await work(runs, 0, KEPT)
    write, done = database_module.write, [0]

    async def cut(operation: Callable[[], Awaitable[Any]]) -> Any:
        done[0] += 1
        if done[0] == stop:
            raise RuntimeError("killed")
        return await write(operation)

    for stop in (1, 2, 3):
        done[0] = 0
        monkeypatch.setattr(database_module, "write", cut)
        with pytest.raises(RuntimeError):
            await work(runs, KEPT, 2 * KEPT)
        monkeypatch.setattr(database_module, "write", write)
        await work(await runs_in(database), 0, KEPT)
        assert (await runs.get(name("a"))).value.steps <= KEPT + stop
    await work(runs, 0, 2 * KEPT)
    assert (await runs.get(name("a"))).value.steps == 2 * KEPT


@pytest.mark.parametrize("others", [WRITES - 1, WRITES, 3 * WRITES])
async def test_a_write_with_an_unknown_outcome_is_not_done_again_after_many_others(
    database: Database, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """The connection is lost after a write; before it is there again, another process has written often."""
    runs, other = await runs_in(database), await runs_in(database)
    await runs.create(name("a"), Run("p"))
    write = database_module.write

    async def lost(operation: Callable[[], Awaitable[Any]]) -> Any:
        monkeypatch.setattr(database_module, "write", write)
        await write(operation)
        for _ in range(others):
            await other.change(name("a"), step)
        raise pymongo.errors.AutoReconnect("connection closed")

    monkeypatch.setattr(database_module, "write", lost)
    monkeypatch.setattr(database_module, "_DELAYS", (0.0,))
    if others < WRITES:
        await runs.change(name("a"), step, request_id="r")
    else:
        with pytest.raises(Unavailable, match="too often"):
            await runs.change(name("a"), step, request_id="r")
    assert (await runs.get(name("a"))).value.steps == others + 1
    await runs.change(name("a"), step, request_id="r")
    assert (await runs.get(name("a"))).value.steps == others + 1
