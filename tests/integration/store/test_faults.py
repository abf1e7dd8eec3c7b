"""Errors of the database and lost connections: retried where that is safe, told apart where it matters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pymongo.errors
import pytest

from penstock.errors import AlreadyExists, Conflict, Unavailable
from penstock.store import Database, Rows, RowUpdate
from penstock.store import database as database_module
from tests.integration.store.sample import Happened, Run, name, runs_in


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """`lose(n, after=True)`: the next n writes end in a lost connection, after (or before) they were done."""
    write = database_module.write
    state = {"left": 0, "after": True}
    count: list[int] = []

    async def losing(operation: Callable[[], Awaitable[Any]]) -> Any:
        count.append(1)
        if state["left"] == 0:
            return await write(operation)
        state["left"] = int(state["left"]) - 1
        if state["after"]:
            await write(operation)
        raise pymongo.errors.AutoReconnect("connection closed")

    monkeypatch.setattr(database_module, "write", losing)
    monkeypatch.setattr(database_module, "_DELAYS", (0.0, 0.0, 0.0))

    def arm(writes: int, *, after: bool) -> list[int]:
        state.update(left=writes, after=after)
        count.clear()
        return count

    return arm


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_change_whose_outcome_is_unknown_is_made_once(
    database: Database, lose: Callable[..., list[int]], after: bool, times: int
) -> None:
    runs = await runs_in(database)
    lose(times, after=after)
    created = await runs.create(name("a"), Run("p"), [Happened()])
    assert (created.version, created.sequence) == (1, 1)
    lose(times, after=after)
    saved = await runs.save(created, replace(created.value, steps=1), [Happened()])
    assert (saved.version, saved.sequence) == (2, 2)
    lose(times, after=after)
    await runs.change(name("a"), lambda run: (replace(run, steps=run.steps + 1), [Happened()]))
    stored = await runs.get(name("a"))
    assert (stored.version, stored.sequence, stored.value.steps) == (3, 3, 2)
    lose(times, after=after)
    await runs.trim(await runs.pending())
    assert await runs.pending() == []
    lose(times, after=after)
    await runs.delete(stored, [Happened()])
    lose(times, after=after)
    assert (await runs.create(name("a"), Run("p"), [Happened()])).sequence == 5


@pytest.mark.parametrize("after", [True, False])
async def test_a_lost_race_is_told_from_a_lost_connection(
    database: Database, lose: Callable[..., list[int]], after: bool
) -> None:
    runs = await runs_in(database)
    stale = await runs.create(name("a"), Run("p"))
    await runs.save(stale, replace(stale.value, steps=1))
    lose(1, after=after)
    with pytest.raises(Conflict):
        await runs.save(stale, replace(stale.value, steps=2))
    lose(1, after=after)
    with pytest.raises(AlreadyExists):
        await runs.create(name("a"), Run("p"))
    assert (await runs.get(name("a"))).value.steps == 1


@pytest.mark.parametrize("after", [True, False])
async def test_rows_are_written_once_whatever_is_lost(
    database: Database, lose: Callable[..., list[int]], after: bool
) -> None:
    rows = Rows(database, "rows", indexes=("owner",))
    lose(1, after=after)
    await rows.insert([{"_id": f"r{n}", "owner": "none"} for n in range(3)])
    lose(1, after=after)
    assert await rows.update("r0", expect={"owner": "none"}, set={"owner": "me"}, unset=["x"])
    lose(1, after=after)
    assert not await rows.update("r0", expect={"owner": "none"}, set={"owner": "you"})
    lose(1, after=after)
    await rows.update_many([RowUpdate("r1", {"owner": "none"}, {"owner": "me"})])
    lose(1, after=after)
    await rows.upsert("r2", {"owner": "me"})
    assert len(await rows.find(eq={"owner": "me"})) == 3
    lose(1, after=after)
    await rows.delete(["r0"])
    assert await rows.get("r0") is None


async def test_a_database_that_stays_away_is_unavailable(database: Database, lose: Callable[..., list[int]]) -> None:
    runs = await runs_in(database)
    count = lose(99, after=False)
    with pytest.raises(Unavailable, match="try again"):
        await runs.create(name("a"), Run("p"))
    assert len(count) == 4


async def test_an_absent_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_PATIENCE", 0.0)
    database = Database("mongodb://127.0.0.1:1/", "penstock_test")
    try:
        with pytest.raises(Unavailable):
            await database.ping()
    finally:
        await database.close()
