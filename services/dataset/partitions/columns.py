"""Columns of partitions: which kinds of values a field has, the one Arrow type that follows, and the conversions.

The type of a column is a function of the rows of the version alone, so all files of a manifest have the same schema
and any Parquet reader can read them as one table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from services.dataset.values import EXACT, Record, encode

KEY, REVISION = "_key", "_revision"

# Bits of a mask: the kinds of values that a column holds.
BOOL, INT, BIG, DOUBLE, TEXT, NESTED = 1, 2, 4, 8, 16, 32
Kinds = dict[str, int]


class ColumnType(Enum):
    """How a column is stored. JSON: as the canonical JSON text of each value."""

    BOOL = "bool"
    INT = "int64"
    DOUBLE = "double"
    TEXT = "string"
    JSON = "json"

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type."""
        return _ARROW[self]


_ARROW = {
    ColumnType.BOOL: pa.bool_(),
    ColumnType.INT: pa.int64(),
    ColumnType.DOUBLE: pa.float64(),
    ColumnType.TEXT: pa.string(),
    ColumnType.JSON: pa.string(),
}
Columns = dict[str, ColumnType]


def type_of(mask: int) -> ColumnType:
    """The type of a column that holds these kinds of values."""
    if mask == BOOL:
        return ColumnType.BOOL
    if mask == TEXT:
        return ColumnType.TEXT
    if mask & ~(INT | BIG) == 0:
        return ColumnType.INT
    if mask & ~(INT | DOUBLE) == 0:
        return ColumnType.DOUBLE
    return ColumnType.JSON  # mixed, nested, or integers that a double would change


def join(kinds: Iterable[Mapping[str, int]]) -> Kinds:
    """The kinds of the fields of several sets of rows together."""
    joined: Kinds = {}
    for some in kinds:
        for name, mask in some.items():
            joined[name] = joined.get(name, 0) | mask
    return joined


def columns_of(kinds: Mapping[str, int]) -> Columns:
    """The columns that fields of these kinds get, sorted by name."""
    return {name: type_of(kinds[name]) for name in sorted(kinds)}


def kinds_of_records(records: Iterable[Record]) -> Kinds:
    """The kinds of the top-level fields of records."""
    kinds: Kinds = {}
    for record in records:
        for name, value in record.items():
            kinds[name] = kinds.get(name, 0) | kind_of(value)
    return kinds


def kind_of(value: Any) -> int:
    """The kind of one value that is there."""
    kind = type(value)
    if kind is str:
        return TEXT
    if kind is int:
        return INT if -EXACT <= value <= EXACT else BIG
    if kind is float:
        return DOUBLE
    return BOOL if kind is bool else NESTED


def kinds_of_table(table: pa.Table, columns: Columns) -> Kinds:
    """The kinds of the fields of stored rows."""
    kinds = {name: _kinds_of_column(table.column(name), kind) for name, kind in columns.items()}
    return {name: mask for name, mask in kinds.items() if mask}


def _kinds_of_column(column: pa.ChunkedArray, kind: ColumnType) -> int:
    if column.null_count == len(column):
        return 0
    if kind is ColumnType.BOOL:
        return BOOL
    if kind is ColumnType.TEXT:
        return TEXT
    if kind is ColumnType.JSON:
        return _kinds_of_texts(column.unique().to_pylist())
    limit = pa.scalar(EXACT, kind.arrow)
    exact = pc.and_(pc.less_equal(column, limit), pc.greater_equal(column, pa.scalar(-EXACT, kind.arrow)))
    if kind is ColumnType.INT:
        return INT * _any(exact) | BIG * _any(pc.invert(exact))
    whole = pc.and_(pc.equal(pc.floor(column), column), exact)
    return INT * _any(whole) | DOUBLE * _any(pc.invert(whole))


def _any(mask: pa.ChunkedArray) -> int:
    return int(pc.any(mask).as_py() is True)


def _kinds_of_texts(texts: Sequence[str | None]) -> int:
    mask = 0
    for text in texts:
        if text is not None:
            mask |= _FIRST.get(text[0], 0) or kind_of(json.loads(text))
    return mask


_FIRST = {'"': TEXT, "{": NESTED, "[": NESTED, "t": BOOL, "f": BOOL}


def schema_of(columns: Columns) -> pa.Schema:
    """The Arrow schema of partitions with these columns."""
    fields = [pa.field(name, kind.arrow) for name, kind in columns.items()]
    return pa.schema([pa.field(KEY, pa.string()), pa.field(REVISION, pa.string()), *fields])


def table_of_records(
    keys: Sequence[str], revisions: Sequence[str], records: Sequence[Record], columns: Columns
) -> pa.Table:
    """New rows as a table with these columns."""
    arrays = [pa.array(keys, pa.string()), pa.array(revisions, pa.string())]
    for name, kind in columns.items():
        values = [record.get(name) for record in records]
        if kind is ColumnType.JSON:
            values = [None if value is None else encode(value) for value in values]
        elif kind is ColumnType.DOUBLE:
            values = [None if value is None else float(value) for value in values]
        arrays.append(pa.array(values, kind.arrow))
    return pa.Table.from_arrays(arrays, schema=schema_of(columns))


def convert(table: pa.Table, before: Columns, after: Columns) -> pa.Table:
    """Stored rows under other columns."""
    arrays = [table.column(KEY), table.column(REVISION)]
    for name, kind in after.items():
        known = before.get(name)
        if known is None:
            arrays.append(pa.nulls(table.num_rows, kind.arrow))
        elif known is kind:
            arrays.append(table.column(name))
        else:
            arrays.append(_convert_column(table.column(name), known, kind))
    return pa.Table.from_arrays(arrays, schema=schema_of(after))


def _convert_column(column: pa.ChunkedArray, before: ColumnType, after: ColumnType) -> pa.Array:
    values = column.to_pylist()
    if before is ColumnType.JSON:
        values = [None if text is None else json.loads(text) for text in values]
    if after is ColumnType.JSON:
        values = [None if value is None else encode(_canonical(value)) for value in values]
    elif after is ColumnType.DOUBLE:
        values = [None if value is None else float(value) for value in values]
    elif after is ColumnType.INT:
        values = [None if value is None else int(value) for value in values]
    # A column whose kind changed altogether holds nothing here: its old values are in rows that are gone.
    return pa.array(values, after.arrow)


def _canonical(value: Any) -> Any:
    """A double column holds whole numbers as doubles; as JSON they are integers again."""
    whole = isinstance(value, float) and value.is_integer() and -EXACT <= value <= EXACT
    return int(value) if whole else value
