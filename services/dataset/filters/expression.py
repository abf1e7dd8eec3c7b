"""What a filter says, and whether a record satisfies it. This is the meaning; the SQL must agree with it.

- A comparison with a field that is missing (or null) is false, `!=` too; `NOT` turns that around.
- `=` and `!=` bring the literal to the type of the value: `a = 7` and `a = "7"` find 7 and "7".
- `<`, `<=`, `>`, `>=` compare numbers with numbers and text (by code point) with quoted or wordy literals.
- `a:"x"` asks whether text contains x, a list has an element equal to x, an object has a field x. `a:*` and `has(a)`:
  the field is there. A field by itself: it is there and is not false.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from services.dataset.values import MAX_INT, Record

Field: TypeAlias = tuple[str, ...]
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Literal:
    """A value as it was written; `quoted` text is not a number in orderings."""

    text: str
    quoted: bool

    @property
    def number(self) -> int | float | None:
        """The number that the text is, if it is one (and fits into a double)."""
        if not _NUMBER.fullmatch(self.text):
            return None
        if self.text.lstrip("-").isdigit() and -MAX_INT <= (whole := int(self.text[:25])) < MAX_INT:
            return whole if len(self.text) <= 20 else None
        found = float(self.text)
        return found if abs(found) != float("inf") else None

    @property
    def boolean(self) -> bool | None:
        """true or false, if the text is that."""
        return {"true": True, "false": False}.get(self.text)

    @property
    def orders_numbers(self) -> bool:
        """Whether `<` with it compares numbers; else it compares text."""
        return not self.quoted and self.number is not None


@dataclass(frozen=True)
class And:
    """All of them hold."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Or:
    """One of them holds."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Not:
    """It does not hold."""

    item: Expression


@dataclass(frozen=True)
class Compare:
    """`field op literal`, with op one of = != < <= > >= and `:`."""

    field: Field
    op: str
    literal: Literal


@dataclass(frozen=True)
class Present:
    """The field is there."""

    field: Field


@dataclass(frozen=True)
class Truthy:
    """The field is there and is not false."""

    field: Field


Expression: TypeAlias = And | Or | Not | Compare | Present | Truthy


def fields(expression: Expression) -> Iterator[Field]:
    """All fields that an expression names."""
    if isinstance(expression, And | Or):
        for item in expression.items:
            yield from fields(item)
    elif isinstance(expression, Not):
        yield from fields(expression.item)
    else:
        yield expression.field


def holds(expression: Expression, record: Record) -> bool:
    """Whether a record satisfies an expression."""
    if isinstance(expression, And):
        return all(holds(item, record) for item in expression.items)
    if isinstance(expression, Or):
        return any(holds(item, record) for item in expression.items)
    if isinstance(expression, Not):
        return not holds(expression.item, record)
    value = lookup(record, expression.field)
    if isinstance(expression, Present):
        return value is not None
    if isinstance(expression, Truthy):
        return value is not None and value is not False
    return value is not None and compare(expression.op, value, expression.literal)


def lookup(record: Record, field: Field) -> Any:
    """The value at a path through objects; None if it is not there."""
    value: Any = record
    for name in field:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def compare(op: str, value: Any, literal: Literal) -> bool:
    """Whether `value op literal` holds for a value that is there."""
    if op == "=":
        return equal(value, literal)
    if op == "!=":
        return not equal(value, literal)
    if op == ":":
        return _has(value, literal)
    if isinstance(value, str):
        return not literal.orders_numbers and ORDERINGS[op](value, literal.text)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return literal.orders_numbers and ORDERINGS[op](value, literal.number)
    return False


def equal(value: Any, literal: Literal) -> bool:
    """Whether a value equals a literal once that has the value's type."""
    if isinstance(value, str):
        return value == literal.text
    if isinstance(value, bool):
        return value is literal.boolean
    if isinstance(value, int | float):
        return literal.number is not None and value == literal.number
    return False


def _has(value: Any, literal: Literal) -> bool:
    if isinstance(value, str | dict):
        return literal.text in value
    if isinstance(value, list):
        return any(equal(item, literal) for item in value)
    return equal(value, literal)
