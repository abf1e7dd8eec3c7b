"""What is patched in nx-27017 is still there to be patched, and changes no answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from neosqlite import Connection  # type: ignore[import-untyped]
from neosqlite.collection.query_helper import QueryHelper  # type: ignore[import-untyped]

from penstock.backing.nx_patches import _transaction, indexed

CURRENT = 2**62
QUERIES: list[dict[str, Any]] = [
    {"key": {"$in": ["~k3", "~k7", "~nobody"]}},
    {"to": CURRENT, "key": {"$in": ["~k3", "~k4"]}},
    {"to": 2, "key": {"$in": [f"~k{n}" for n in range(100)]}},
    {"key": {"$in": ["~k3", "~k4"], "$gte": "~k4"}},
    {"key": {"$in": []}},
    {"key": {"$nin": ["~k3", "~k4"]}, "to": 2},
    {"from": {"$in": [1]}, "to": {"$gt": 1, "$lte": 3}},
    {"to": CURRENT, "key": "~k5"},
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Rows that are current, and rows that are not."""
    opened = Connection(str(tmp_path / "x.db"))
    rows = opened["rows"]
    for field in ("key", "from", "to"):
        rows.create_index(field)
    rows.insert_many(
        [{"_id": f"k{n}", "key": f"~k{n}", "from": 1, "to": CURRENT if n % 5 else n + 2} for n in range(200)]
    )
    yield opened
    opened.close()


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueryHelper, "_build_simple_where_clause", indexed(QueryHelper._build_simple_where_clause))


def found(connection: Connection, query: dict[str, Any]) -> list[str]:
    return sorted(row["_id"] for row in connection["rows"].find(query))


def plan(connection: Connection, query: dict[str, Any]) -> str:
    """How SQLite answers a query."""
    statements: list[str] = []
    connection.db.set_trace_callback(statements.append)
    list(connection["rows"].find(query))
    connection.db.set_trace_callback(None)
    select = next(text for text in statements if text.startswith("SELECT id, _id, data"))
    return " ".join(str(row[3]) for row in connection.db.execute(f"EXPLAIN QUERY PLAN {select}"))


def test_without_the_patch_every_row_is_read(connection: Connection) -> None:
    assert "SCAN rows" in plan(connection, QUERIES[0])
    assert "idx_rows_key" not in plan(connection, QUERIES[1])


@pytest.mark.usefixtures("patched")
def test_values_are_looked_up_in_their_index_whatever_else_is_asked(connection: Connection) -> None:
    for query in QUERIES[:3]:
        assert "SEARCH rows USING INDEX idx_rows_key" in plan(connection, query), query
    assert "idx_rows_key" in plan(connection, QUERIES[-1]) or "idx_rows_to" in plan(connection, QUERIES[-1])


def write(connection: Connection, numbers: range) -> list[dict[str, Any]]:
    """Insert rows one by one in a transaction, as the handler does; what could not be inserted."""
    with _transaction(connection.db) as failed:
        for number in numbers:
            try:
                connection["rows"].insert_one({"_id": f"k{number}", "key": "x" * 3_000})
            except sqlite3.Error as error:
                failed.append({"errmsg": str(error)})
    return failed


def test_a_document_that_fails_takes_no_other_with_it(connection: Connection) -> None:
    assert [each["errmsg"] for each in write(connection, range(198, 203))] == ["UNIQUE constraint failed: rows._id"] * 2
    assert found(connection, {"key": "x" * 3_000}) == ["k200", "k201", "k202"]


def test_a_full_disk_is_an_error_whatever_is_stored(connection: Connection) -> None:
    """SQLite gives up the whole transaction, but not what comes after that document: it may be asked for again."""
    pages = connection.db.execute("PRAGMA page_count").fetchone()[0]
    connection.db.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        write(connection, range(200, 400))
    connection.db.execute(f"PRAGMA max_page_count = {pages + 2_000}")
    assert all("UNIQUE" in each["errmsg"] for each in write(connection, range(200, 400)))
    assert len(found(connection, {"key": "x" * 3_000})) == 200


def test_no_answer_changes(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [found(connection, query) for query in QUERIES]
    assert [len(ids) for ids in before] == [2, 2, 1, 1, 0, 1, 1, 0]
    monkeypatch.setattr(QueryHelper, "_build_simple_where_clause", indexed(QueryHelper._build_simple_where_clause))
    assert [found(connection, query) for query in QUERIES] == before
