"""Filters and orders as DuckDB SQL over the columns of partitions. Must mean what `expression` means.

Columns are addressed by position (`c2`), so no field name ever becomes part of a statement; literals are parameters.
Every predicate is true or false, never null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.dataset.filters.expression import And, Compare, Expression, Field, Literal, Not, Or, Present, Truthy
from services.dataset.partitions.columns import ColumnType

Known = Mapping[str, tuple[str, ColumnType]]
_NEVER = "false"


@dataclass
class Compiler:
    """Compiles for the columns `known`: field -> (its name in SQL, its type). `parameters` fill as it goes."""

    known: Known
    parameters: dict[str, Any] = field(default_factory=dict)

    def parameter(self, value: Any) -> str:
        """A placeholder for a value."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def predicate(self, expression: Expression) -> str:
        """The SQL of an expression."""
        if isinstance(expression, And | Or):
            word = " AND " if isinstance(expression, And) else " OR "
            return "(" + word.join(self.predicate(item) for item in expression.items) + ")"
        if isinstance(expression, Not):
            return f"(NOT {self.predicate(expression.item)})"
        known = self.known.get(expression.field[0])
        if known is None:
            return _NEVER
        column, kind = known
        if kind is ColumnType.JSON:
            return f"coalesce({self._json(expression, column)}, false)"
        return f"coalesce({self._typed(expression, column, kind)}, false)" if len(expression.field) == 1 else _NEVER

    def _typed(self, leaf: Compare | Present | Truthy, column: str, kind: ColumnType) -> str:
        if isinstance(leaf, Present):
            return f"{column} IS NOT NULL"
        if isinstance(leaf, Truthy):
            return column if kind is ColumnType.BOOL else f"{column} IS NOT NULL"
        if kind is ColumnType.TEXT:
            return self._text(leaf.op, column, leaf.literal)
        if kind is ColumnType.BOOL:
            return self._boolean(leaf.op, column, leaf.literal)
        return self._number(leaf.op, column, leaf.literal, kind)

    def _text(self, op: str, value: str, literal: Literal) -> str:
        if op == ":":
            return f"contains({value}, {self.parameter(literal.text)})"
        if op not in ("=", "!=") and literal.orders_numbers:
            return _NEVER
        return f"{value} {op} {self.parameter(literal.text)}"

    def _boolean(self, op: str, value: str, literal: Literal) -> str:
        if op in ("=", ":"):
            return _NEVER if literal.boolean is None else f"{value} = {self.parameter(literal.boolean)}"
        if op != "!=":
            return _NEVER
        return f"{value} IS NOT NULL" if literal.boolean is None else f"{value} != {self.parameter(literal.boolean)}"

    def _number(self, op: str, value: str, literal: Literal, kind: ColumnType) -> str:
        number = literal.number
        if op in ("=", ":", "!="):
            op = "=" if op == ":" else op
            if number is None:
                return f"{value} IS NOT NULL" if op == "!=" else _NEVER
        elif not literal.orders_numbers:
            return _NEVER
        assert number is not None
        return self.exact(op, value, number, kind)

    def exact(self, op: str, value: str, number: int | float, kind: ColumnType) -> str:
        """`value op number` without rounding either: DuckDB would compare an integer and a double as doubles."""
        integer = kind is ColumnType.INT
        near = math.floor(number) if integer else float(number)
        if near != number:  # not a value that the column can have: the nearest below or above stands for it
            if op in ("=", "!="):
                return _NEVER if op == "=" else f"{value} IS NOT NULL"
            below = near < number
            op = (
                {"<": "<=", "<=": "<=", ">": ">", ">=": ">"}[op]
                if below
                else {"<": "<", "<=": "<", ">": ">=", ">=": ">="}[op]
            )
        if not integer:
            return f"{value} {op} {self.parameter(near)}::DOUBLE"
        if not -(2**63) <= near < 2**63:
            return f"{value} IS NOT NULL" if op == "!=" or ((op[0] == "<") == (near > 0) and op != "=") else _NEVER
        return f"{value} {op} {self.parameter(int(near))}::BIGINT"

    def _json(self, leaf: Compare | Present | Truthy, column: str) -> str:
        value, guard = self._at(column, leaf.field)
        kind = f"json_type({value})"
        if isinstance(leaf, Present):
            body = f"{kind} IS NOT NULL AND {kind} != 'NULL'"
        elif isinstance(leaf, Truthy):
            body = (
                f"{kind} IS NOT NULL AND {kind} != 'NULL' AND NOT ({kind} = 'BOOLEAN' AND {_string(value)} = 'false')"
            )
        elif leaf.op == ":":
            body = self._json_has(value, kind, leaf.literal)
        else:
            body = self._json_compare(leaf.op, value, kind, leaf.literal)
        return f"({guard}({body}))"

    def _at(self, column: str, path: Field) -> tuple[str, str]:
        """The JSON value at a path, and a guard against taking `"0"` for the place in a list."""
        value, guard = column, ""
        for name in path[1:]:
            if name.isdigit():
                guard += f"json_type({value}) = 'OBJECT' AND "
            pointer = "/" + name.replace("~", "~0").replace("/", "~1")
            value = f"json_extract({value}, {self.parameter(pointer)})"
        return value, guard

    def _json_compare(self, op: str, value: str, kind: str, literal: Literal) -> str:
        text = self._text(op, _string(value), literal)
        boolean = self._boolean(op, f"({_string(value)} = 'true')", literal)
        whole = self._number(op, f"TRY_CAST({value} AS BIGINT)", literal, ColumnType.INT)
        double = self._number(op, f"TRY_CAST({value} AS DOUBLE)", literal, ColumnType.DOUBLE)
        nested = "true" if op == "!=" else _NEVER
        return (
            f"CASE {kind} WHEN 'VARCHAR' THEN {text} WHEN 'BOOLEAN' THEN {boolean} WHEN 'BIGINT' THEN {whole} "
            f"WHEN 'UBIGINT' THEN {whole} WHEN 'DOUBLE' THEN {double} WHEN 'ARRAY' THEN {nested} "
            f"WHEN 'OBJECT' THEN {nested} ELSE false END"
        )

    def _json_has(self, value: str, kind: str, literal: Literal) -> str:
        element = self._json_compare("=", "e", "json_type(e)", literal)
        inside = f"len(list_filter(json_extract({value}, '$[*]'), lambda e: coalesce({element}, false))) > 0"
        key = f"list_contains(json_keys({value}), {self.parameter(literal.text)})"
        return (
            f"CASE {kind} WHEN 'VARCHAR' THEN {self._text(':', _string(value), literal)} WHEN 'ARRAY' THEN {inside} "
            f"WHEN 'OBJECT' THEN {key} ELSE {self._json_compare('=', value, kind, literal)} END"
        )


def _string(value: str) -> str:
    """The text of a JSON scalar, unquoted."""
    return f"json_extract_string({value}, '$')"
