"""Filters and orders mean the same in DuckDB over partitions as in Python over records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cmp_to_key
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.dataset.filters.expression import Compare, Expression, Literal, Present, Truthy, holds
from services.dataset.filters.sql import Compiler
from services.dataset.partitions.columns import (
    ColumnType,
    columns_of,
    kinds_of_records,
    kinds_of_table,
    table_of_records,
)
from services.dataset.query.order import Order, Position, beyond, position, sorting
from services.dataset.values import Cleaner, Record
from tests.unit.dataset.strategies import BIG, FIELDS, NUMBERS, TEXTS, expressions, records

Known = dict[str, tuple[str, ColumnType]]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


def _table(rows: list[Record]) -> tuple[pa.Table, Known, str]:
    kinds = kinds_of_records(rows)
    columns = columns_of(kinds)
    table = table_of_records([f"k{n:03d}" for n in range(len(rows))], ["-"] * len(rows), rows, columns)
    assert kinds_of_table(table, columns) == kinds  # what is stored tells the kinds that were in it
    known = {name: (f"c{index}", kind) for index, (name, kind) in enumerate(columns.items(), 2)}
    return table, known, ", ".join(f"c{index}" for index in range(len(columns) + 2))


VALUES: tuple[Any, ...] = (
    *TEXTS,
    *NUMBERS,
    *BIG,
    True,
    False,
    ["x", 7, "7", None, True],
    [],
    {"x": 1, "0": "7"},
    {"x": {}, "y/~": None},
)
LITERALS = (*TEXTS, *map(str, (*NUMBERS, *BIG)), "false", "1e30", "-1e30", "9007199254740993", "2.5e0")
PATHS = [
    ("text",),
    ("int",),
    ("double",),
    ("flag",),
    ("mixed",),
    ("mixed", "x"),
    ("mixed", "0"),
    ("mixed", "y/~"),
    ("no",),
]


def test_every_comparison_of_every_value_means_the_same(connection: duckdb.DuckDBPyConnection) -> None:
    """All leaves over all kinds of columns: what random filters would need long to come by."""
    texts, integers = TEXTS, [v for v in (*NUMBERS, *BIG) if isinstance(v, int)]
    doubles = [v for v in NUMBERS if abs(v) <= 2**53 or isinstance(v, float)]
    columns: dict[str, Sequence[object]] = {
        "text": texts, "int": integers, "double": doubles, "flag": (True, False), "mixed": VALUES
    }  # fmt: skip
    rows = [
        Cleaner().record({name: values[n] for name, values in columns.items() if n < len(values)})
        for n in range(len(VALUES) + 1)
    ]
    table, known, names = _table(rows)
    assert [known[name][1].value for name in columns] == ["string", "int64", "double", "bool", "json"]
    leaves: list[Expression] = [kind(path) for path in PATHS for kind in (Present, Truthy)]
    leaves += [
        Compare(path, op, Literal(text, quoted))
        for path in PATHS
        for op in ("=", "!=", "<", "<=", ">", ">=", ":")
        for text in LITERALS
        for quoted in (False, True)
    ]
    cursor = connection.cursor()
    cursor.register("rows", table)
    for at in range(0, len(leaves), 150):
        some = leaves[at : at + 150]
        compiler = Compiler(known)
        asked = ", ".join(compiler.predicate(leaf) for leaf in some)
        statement = f"SELECT {asked} FROM rows AS t({names}) ORDER BY c0"
        answers = cursor.execute(statement, compiler.parameters).fetchall()
        for row, answer in zip(rows, answers, strict=True):
            for leaf, found in zip(some, answer, strict=True):
                assert found is holds(leaf, row), (leaf, row)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(records, min_size=1, max_size=12), expression=expressions)
def test_a_filter_finds_in_partitions_what_it_finds_in_records(
    connection: duckdb.DuckDBPyConnection, rows: list[Record], expression: Expression
) -> None:
    table, known, names = _table(rows)
    compiler = Compiler(known)
    predicate = compiler.predicate(expression)
    cursor = connection.cursor()
    cursor.register("rows", table)
    found = cursor.execute(f"SELECT c0 FROM rows AS t({names}) WHERE {predicate}", compiler.parameters).fetchall()
    wanted = [f"k{n:03d}" for n, row in enumerate(rows) if holds(expression, row)]
    assert sorted(key for (key,) in found) == wanted


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(records, min_size=1, max_size=12),
    field=st.sampled_from(FIELDS),
    descending=st.booleans(),
    size=st.integers(1, 4),
)
def test_pages_in_partitions_are_the_pages_of_the_sorted_records(
    connection: duckdb.DuckDBPyConnection, rows: list[Record], field: str, descending: bool, size: int
) -> None:
    table, known, names = _table(rows)
    order, column = Order(field, descending), known.get(field)
    places = {
        f"k{n:03d}": position(row, f"k{n:03d}", order, column[1] if column else None) for n, row in enumerate(rows)
    }

    def compare(one: str, two: str) -> int:
        return -1 if places[one].before(places[two], descending) else 1

    wanted = sorted(places, key=cmp_to_key(compare))
    cursor = connection.cursor()
    cursor.register("rows", table)
    got: list[str] = []
    after: Position | None = None
    while True:
        compiler = Compiler(known)
        later = beyond(compiler, order, column, "c0", after) if after else "true"
        statement = f"SELECT c0 FROM rows AS t({names}) WHERE {later} ORDER BY {sorting(order, column, 'c0').clause}"
        page = [key for (key,) in cursor.execute(f"{statement} LIMIT {size}", compiler.parameters).fetchall()]
        got += page
        if not page:
            break
        after = places[page[-1]]
    assert got == wanted
