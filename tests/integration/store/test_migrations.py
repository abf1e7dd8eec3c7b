"""Documents of older releases, brought to what this one declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from penstock.errors import FailedPrecondition
from penstock.store import Aggregates, Database
from tests.integration.store.sample import Happened, name


@dataclass(frozen=True)
class Old:
    owner: str


@dataclass(frozen=True)
class New:
    owners: tuple[str, ...]
    size: int


def _split(value: dict[str, Any]) -> dict[str, Any]:
    return {"owners": value["owner"].split(",")}


def _measure(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "size": len(value["owners"])}


def new_in(database: Database) -> Aggregates[New]:
    return Aggregates(
        database,
        "things",
        New,
        indexes={"size": lambda thing: thing.size},
        schema_version=3,
        migrations={1: _split, 2: _measure},
    )


async def test_values_are_migrated_step_by_step_and_indexed(database: Database) -> None:
    old = Aggregates(database, "things", Old, indexes={"owner": lambda thing: thing.owner})
    await old.prepare()
    first = await old.create(name("a"), Old("x,y"), [Happened()])
    gone = await old.create(name("b"), Old("z"))
    await old.delete(gone)
    new = new_in(database)
    await new.prepare()
    [found] = await new.find(eq={"size": 2})
    assert (found.value, found.version, found.sequence) == (New(("x", "y"), 2), first.version + 1, 1)
    assert len(await new.pending()) == 1
    await new.prepare()
    assert (await new.get(name("a"))).version == found.version
    assert (await new.create(name("b"), New((), 0))).version == 3


async def test_a_migration_cut_short_is_taken_up_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Aggregates(database, "things", Old)
    await old.prepare()
    for id in ("a", "b"):
        await old.create(name(id), Old(id))
    half = new_in(database)
    await half.get_many([])
    document = await database.collection("things").find_one({"_id": name("a")})
    assert document is not None
    migrated = {"value": {"owners": ["a"], "size": 1}, "schema_version": 3, "version": 2}
    await database.collection("things").update_one({"_id": name("a")}, {"$set": migrated})
    await half.prepare()
    assert [found.value for found in await half.find()] == [New(("a",), 1), New(("b",), 1)]
    assert len(await half.find(eq={"size": 1})) == 2


async def test_a_new_index_finds_what_was_there_before(database: Database) -> None:
    before = Aggregates(database, "things", Old)
    await before.prepare()
    await before.create(name("a"), Old("x"))
    after = Aggregates(database, "things", Old, indexes={"owner": lambda thing: thing.owner})
    await after.prepare()
    assert len(await after.find(eq={"owner": "x"})) == 1


async def test_documents_of_a_newer_release_are_left_alone(database: Database) -> None:
    new = new_in(database)
    await new.prepare()
    with pytest.raises(FailedPrecondition, match="newer release"):
        await Aggregates(database, "things", Old).prepare()
