"""Rows against the real server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from penstock.errors import InvalidArgument
from penstock.store import Database, Rows, RowUpdate, Span

START = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
OPEN = 2**62


def metrics(database: Database) -> Rows:
    return Rows(database, "metrics", indexes=("run", "at", "from", "to"))


async def test_a_row_comes_back_as_it_was_stored(database: Database) -> None:
    rows = metrics(database)
    row = {
        "_id": "r/1/1",
        "run": "2026-11-20",
        "at": START,
        "data": {"a.b": [1, {"$date": "x", "n": None}], "": 0.5, "50%": True},
        "big": OPEN,
    }
    assert await rows.insert([row]) == 1
    assert await rows.get("r/1/1") == row
    assert await rows.get("r/1/2") is None


async def test_a_none_is_not_stored_and_numbers_that_are_none_are_text(database: Database) -> None:
    rows = metrics(database)
    await rows.insert([{"_id": "a", "run": None, "note": None, "values": [float("nan"), float("-inf")]}])
    assert await rows.get("a") == {"_id": "a", "values": ["NaN", "-Infinity"]}


async def test_rows_written_again_are_ignored(database: Database) -> None:
    rows = metrics(database)
    first = [{"_id": f"r/{n}", "run": "r", "n": n} for n in range(600)]
    assert await rows.insert(first) == 600
    again = [{"_id": f"r/{n}", "run": "r", "n": -1} for n in range(550, 700)]
    assert await rows.insert(again) == 100
    assert (await rows.get("r/560") or {})["n"] == 560
    assert len(await rows.find(eq={"run": "r"})) == 700
    assert await rows.insert([]) == 0


async def test_keys_that_look_like_dates_are_told_apart(database: Database) -> None:
    rows = metrics(database)
    keys = ["2026-11-20", "2026-11-20/000000000001", "2026-11-20T12:00:00.001Z", "2026-11-20T12:00:00.002Z", "1"]
    assert await rows.insert([{"_id": key, "run": key, "to": OPEN} for key in keys]) == len(keys)
    assert set(await rows.get_many([*keys, "2026-11-20T12:00:00Z"])) == set(keys)
    for n, key in enumerate(keys):
        assert [row["_id"] for row in await rows.find(eq={"run": key})] == [key]
        assert await rows.update(key, expect={"to": OPEN, "run": key}, set={"to": n})
    assert [row["to"] for row in (await rows.find(order_by="to"))] == list(range(5))
    assert await rows.delete(keys[:2]) == 2
    assert set(await rows.get_many(keys)) == set(keys[2:])


async def test_the_same_update_of_many_rows_leaves_out_those_that_are_not_as_expected(database: Database) -> None:
    rows = metrics(database)
    ids = [f"r/{n}" for n in range(250)]
    await rows.insert([{"_id": id, "from": 1, "to": OPEN if n % 2 else 7} for n, id in enumerate(ids)])
    removal = {"author": "ana"}
    assert await rows.update_all([*ids, "nobody"], expect={"to": OPEN}, set={"to": 9, "removal": removal}) == 125
    assert await rows.update_all(ids, expect={"to": OPEN}, set={"to": 10}) == 0
    found = await rows.get_many(ids)
    assert [found[id]["to"] for id in ids] == [9 if n % 2 else 7 for n in range(250)]
    assert [id for id in ids if found[id].get("removal") == removal] == ids[1::2]
    assert await rows.update_all([], expect={"to": OPEN}, set={"to": 10}) == 0


async def test_an_update_needs_all_that_it_expects(database: Database) -> None:
    rows = metrics(database)
    await rows.insert([{"_id": "a", "run": "r", "from": 1, "to": OPEN, "note": "x"}])
    assert not await rows.update("a", expect={"to": 7}, set={"to": 2})
    assert not await rows.update("b", set={"to": 2})
    assert await rows.update("a", expect={"to": OPEN, "from": 1}, set={"to": 2}, unset=["note"])
    assert not await rows.update("a", expect={"to": OPEN}, set={"to": 3})
    assert await rows.get("a") == {"_id": "a", "run": "r", "from": 1, "to": 2}


async def test_many_compare_and_sets_change_those_that_fit(database: Database) -> None:
    rows = metrics(database)
    await rows.insert([{"_id": f"{n}", "run": "r", "to": OPEN if n % 2 else 5} for n in range(600)])
    updates = [RowUpdate(f"{n}", expect={"to": OPEN}, set={"to": 9}) for n in range(600)]
    assert await rows.update_many(updates) == 300
    assert await rows.update_many(updates) == 0
    assert len(await rows.find(eq={"to": 9})) == 300


async def test_an_upsert_replaces_the_whole_row(database: Database) -> None:
    rows = metrics(database)
    await rows.upsert("a", {"run": "r", "note": "x"})
    await rows.upsert("a", {"run": "s"})
    assert await rows.get("a") == {"_id": "a", "run": "s"}


async def test_a_time_range_is_exact(database: Database) -> None:
    rows = metrics(database)
    await rows.insert([{"_id": f"m{n:02d}", "run": "r", "at": START + timedelta(milliseconds=n)} for n in range(20)])
    found = await rows.find(
        eq={"run": "r"},
        span=Span("at", START + timedelta(milliseconds=3), START + timedelta(milliseconds=6)),
        limit=10,
    )
    assert [row["_id"] for row in found] == ["m03", "m04", "m05"]
    assert found[0]["at"] == START + timedelta(milliseconds=3)


async def test_a_scan_reads_everything_once_in_windows(database: Database) -> None:
    rows = metrics(database)
    await rows.insert([{"_id": f"k{n:04d}", "run": f"k{n:04d}", "from": n % 7} for n in range(700)])
    sizes, found = [], []
    async for window in rows.scan(order_by="run", batch=300):
        sizes.append(len(window))
        found += [row["run"] for row in window]
    assert found == [f"k{n:04d}" for n in range(700)]
    assert max(sizes) <= 300 and len(sizes) == 3


async def test_an_emptied_and_dropped_collection_can_be_used_again(database: Database) -> None:
    rows = metrics(database)
    await rows.insert([{"_id": "a", "run": "r"}])
    await rows.drop()
    assert await rows.find() == []
    assert await rows.insert([{"_id": "a", "run": "r"}]) == 1


async def test_what_no_server_answers_alike_is_refused(database: Database) -> None:
    rows = metrics(database)
    with pytest.raises(ValueError, match="not declared"):
        await rows.find(eq={"note": "x"})
    with pytest.raises(ValueError, match="indexed fields"):
        await rows.update("a", expect={"note": "2026-11-20"}, set={"to": 1})
    with pytest.raises(InvalidArgument):
        await rows.insert([{"_id": "a", "big": 2**63}])
    with pytest.raises(InvalidArgument):
        await rows.insert([{"_id": "a", "at": datetime(2026, 1, 1)}])
    with pytest.raises(ValueError):
        Rows(database, "x", indexes=("id",))
