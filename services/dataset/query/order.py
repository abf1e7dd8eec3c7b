"""Orders of records by a field: the same in Python and in SQL, with a position from which the next page goes on.

Records without the field come last. Booleans before numbers before text (by code point) before lists and objects;
equal values by key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidArgument
from services.dataset.filters.sql import Compiler
from services.dataset.partitions.columns import ColumnType
from services.dataset.values import Record, encode

_MISSING = 9
_BOOL, _NUMBER, _TEXT, _NESTED = range(4)


@dataclass(frozen=True)
class Order:
    """By a top-level field, or by key ("")."""

    field: str = ""
    descending: bool = False

    @classmethod
    def parse(cls, text: str) -> Order:
        """`field` or `field desc`; the field may be quoted. Raises InvalidArgument."""
        if not text.strip():
            return cls()
        found = re.fullmatch(r"\s*(?:\"([^\"]+)\"|([^\s,\"]+))(?:\s+(asc|desc))?\s*", text)
        if found is None:
            raise InvalidArgument(
                f"'{text[:80]}' is no order: use one field, with ` desc` to reverse.", field="order_by"
            )
        return cls(found[1] or found[2], found[3] == "desc")


@dataclass(frozen=True)
class Position:
    """Where a record is in an order: `rank` tells missing, and the types apart."""

    rank: int
    value: Any
    key: str

    def before(self, other: Position, descending: bool) -> bool:
        """Whether this comes before the other."""
        if self.rank != other.rank:
            if _MISSING in (self.rank, other.rank):
                return other.rank == _MISSING
            return (self.rank < other.rank) != descending
        if self.value != other.value:
            return bool(self.value < other.value) != descending
        return self.key < other.key


def position(record: Record, key: str, order: Order, kind: ColumnType | None) -> Position:
    """Where a record is. In a column of JSON text numbers compare as doubles."""
    value = record.get(order.field) if order.field else None
    if value is None:
        return Position(_MISSING, 0, key)
    if isinstance(value, bool):
        return Position(_BOOL, int(value), key)
    if isinstance(value, int | float):
        return Position(_NUMBER, float(value) if kind is ColumnType.JSON else value, key)
    if isinstance(value, str):
        return Position(_TEXT, value, key)
    return Position(_NESTED, encode(value), key)


@dataclass(frozen=True)
class Sorting:
    """An order in SQL: expressions from most to least significant, each with whether it descends."""

    terms: tuple[tuple[str, bool], ...]

    @property
    def clause(self) -> str:
        """What follows ORDER BY."""
        return ", ".join(f"{term}{' DESC' * descending}" for term, descending in self.terms)


def sorting(order: Order, column: tuple[str, ColumnType] | None, key: str) -> Sorting:
    """The order over a column (its name in SQL and its type; None: no record has the field) and the key's column."""
    if not order.field or column is None:
        return Sorting(((key, False),))
    name, kind = column
    missing = (f"({name} IS NULL)", False)
    if kind is not ColumnType.JSON:
        return Sorting((missing, (name, order.descending), (key, False)))
    rank, number, text = _json_terms(name)
    down = order.descending
    return Sorting((missing, (rank, down), (number, down), (text, down), (key, False)))


def _json_terms(name: str) -> tuple[str, str, str]:
    kind = f"json_type({name})"
    rank = (
        f"(CASE {kind} WHEN 'BOOLEAN' THEN {_BOOL} WHEN 'VARCHAR' THEN {_TEXT} WHEN 'ARRAY' THEN {_NESTED} "
        f"WHEN 'OBJECT' THEN {_NESTED} ELSE {_NUMBER} END)"
    )
    number = (
        f"(CASE {kind} WHEN 'BOOLEAN' THEN ({name} = 'true')::DOUBLE WHEN 'VARCHAR' THEN 0 WHEN 'ARRAY' THEN 0 "
        f"WHEN 'OBJECT' THEN 0 ELSE coalesce(TRY_CAST({name} AS DOUBLE), 0) END)"
    )
    text = (
        f"(CASE {kind} WHEN 'VARCHAR' THEN json_extract_string({name}, '$') WHEN 'ARRAY' THEN {name} "
        f"WHEN 'OBJECT' THEN {name} ELSE '' END)"
    )
    return rank, number, text


def beyond(compiler: Compiler, order: Order, column: tuple[str, ColumnType] | None, key: str, at: Position) -> str:
    """SQL of what comes after a position."""
    later_key = f"{key} > {compiler.parameter(at.key)}"
    if not order.field or column is None:
        return later_key if at.rank == _MISSING else ("true" if column is None else later_key)
    name, kind = column
    if at.rank == _MISSING:
        return f"({name} IS NULL AND {later_key})"
    if kind is ColumnType.JSON:
        return f"({name} IS NULL OR {_after_json(compiler, order, name, at, later_key)})"
    return f"({name} IS NULL OR {_after_typed(compiler, order, name, kind, at, later_key)})"


_RANKS = {ColumnType.BOOL: _BOOL, ColumnType.INT: _NUMBER, ColumnType.DOUBLE: _NUMBER, ColumnType.TEXT: _TEXT}


def _after_typed(compiler: Compiler, order: Order, name: str, kind: ColumnType, at: Position, later_key: str) -> str:
    rank = _RANKS[kind]
    if rank != at.rank:
        return "true" if (rank > at.rank) != order.descending else "false"
    op = "<" if order.descending else ">"
    if rank == _NUMBER:
        later, same = compiler.exact(op, name, at.value, kind), compiler.exact("=", name, at.value, kind)
    else:
        value = compiler.parameter(bool(at.value) if rank == _BOOL else at.value)
        later, same = f"{name} {op} {value}", f"{name} = {value}"
    return f"({name} IS NOT NULL AND ({later} OR ({same} AND {later_key})))"


def _after_json(compiler: Compiler, order: Order, name: str, at: Position, later_key: str) -> str:
    op = "<" if order.descending else ">"
    number = float(at.value) if at.rank in (_BOOL, _NUMBER) else 0.0
    text = at.value if at.rank in (_TEXT, _NESTED) else ""
    values: Sequence[tuple[str, str]] = list(
        zip(
            _json_terms(name),
            (compiler.parameter(at.rank), f"{compiler.parameter(number)}::DOUBLE", compiler.parameter(text)),
            strict=True,
        )
    )
    after = later_key
    for term, value in reversed(values):
        after = f"({term} {op} {value} OR ({term} = {value} AND {after}))"
    return f"({name} IS NOT NULL AND {after})"
