"""The grammar of filters (the AIP-160 subset), and the check of a filter against the columns there are.

As AIP-160 has it, OR binds tighter than AND: `a AND b OR c` is `a AND (b OR c)`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from penstock.errors import InvalidArgument
from services.dataset.filters.expression import And, Compare, Expression, Field, Literal, Not, Or, Present, Truthy

MAX_LENGTH = 8192
MAX_NESTING = 50
_SHOWN_COLUMNS = 30

_GRAMMAR = r"""
?start: expression
?expression: factor ("AND" factor)*      -> all_of
?factor: term ("OR" term)*               -> any_of
?term: "NOT" term                        -> negation
    | "-" term                           -> negation
    | simple
?simple: "(" expression ")"
    | "has" "(" field ")"                -> present
    | field ":" "*"                      -> present
    | field OPERATOR value               -> comparison
    | field ":" value                    -> contains
    | field                              -> truthy
field: segment ("." segment)*
segment: WORD | STRING | HAS
value: STRING | NUMBER | WORD | HAS
HAS: "has"
OPERATOR: "!=" | "<=" | ">=" | "=" | "<" | ">"
NUMBER: /-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![\w$\/])/
WORD: /(?!(AND|OR|NOT|has)(?![\w$\/-]))[^\W\d][\w$\/-]*/
STRING: /"(\\.|[^"\\])*"/s | /'(\\.|[^'\\])*'/s
%ignore /\s+/
"""
_SINGLE = re.compile(r"""\\.|\"""", re.DOTALL)
_PARSER = Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


class _Build(Transformer[Token, Any]):
    """Makes the expression of a parse tree."""

    def all_of(self, items: list[Expression]) -> Expression:
        return items[0] if len(items) == 1 else And(tuple(items))

    def any_of(self, items: list[Expression]) -> Expression:
        return items[0] if len(items) == 1 else Or(tuple(items))

    def negation(self, items: list[Expression]) -> Expression:
        return Not(items[0])

    def present(self, items: list[Any]) -> Expression:
        return Present(items[-1])

    def truthy(self, items: list[Any]) -> Expression:
        return Truthy(items[0])

    def comparison(self, items: list[Any]) -> Expression:
        return Compare(items[0], str(items[1]), items[2])

    def contains(self, items: list[Any]) -> Expression:
        return Compare(items[0], ":", items[1])

    def field(self, items: list[str]) -> Field:
        return tuple(items)

    def segment(self, items: list[Token]) -> str:
        return _unquote(items[0]) if items[0].type == "STRING" else str(items[0])

    def value(self, items: list[Token]) -> Literal:
        if items[0].type == "STRING":
            return Literal(_unquote(items[0]), quoted=True)
        return Literal(str(items[0]), quoted=False)


def _unquote(token: Token) -> str:
    """The text of a quoted literal: back-slash escapes as in JSON, and `\\'`."""
    body = token[1:-1]
    if token[0] == "'":
        body = _SINGLE.sub(lambda found: {"\\'": "'", '"': '\\"'}.get(found[0], found[0]), body)
    try:
        return str(json.loads(f'"{body}"', strict=False))
    except ValueError as error:
        raise InvalidArgument(
            f'The filter has a bad escape in {token[:60]}: use \\" and \\\\.', field="filter"
        ) from error


@lru_cache(maxsize=256)
def parse(text: str) -> Expression | None:
    """The expression of a filter; None for an empty one. Raises InvalidArgument saying where it is wrong."""
    if not text.strip():
        return None
    if len(text) > MAX_LENGTH:
        raise InvalidArgument(f"The filter is longer than {MAX_LENGTH} characters.", field="filter")
    try:
        expression: Expression = _Build().transform(_PARSER.parse(text))
    except VisitError as error:
        if isinstance(error.orig_exc, InvalidArgument):
            raise error.orig_exc from error
        raise
    except UnexpectedInput as error:
        raise InvalidArgument(_problem(text, error), field="filter") from error
    except RecursionError as error:
        raise _too_deep() from error
    if _depth(expression) > MAX_NESTING:
        raise _too_deep()
    return expression


def _depth(expression: Expression) -> int:
    if isinstance(expression, And | Or):
        return 1 + max(_depth(item) for item in expression.items)
    return 1 + _depth(expression.item) if isinstance(expression, Not) else 1


def _too_deep() -> InvalidArgument:
    return InvalidArgument(f"The filter is nested deeper than {MAX_NESTING} levels: write it flatter.", field="filter")


def _problem(text: str, error: UnexpectedInput) -> str:
    example = """write it like label = "7" AND NOT has(mark)"""
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return f"The filter ends too early: {example}."
    place = error.pos_in_stream or 0
    near = text[place : place + 20]
    kind = "cannot be read" if isinstance(error, UnexpectedCharacters) else "is not expected there"
    return f"The filter cannot be understood at character {place + 1}: {near!r} {kind}; {example}."


def bind(expression: Expression, columns: Collection[str]) -> Expression:
    """The expression over the columns there are. Raises InvalidArgument naming one that is not, and those that are.

    `a.b` is the column "a.b" if there is no column `a`.
    """
    if isinstance(expression, And | Or):
        return replace(expression, items=tuple(bind(item, columns) for item in expression.items))
    if isinstance(expression, Not):
        return Not(bind(expression.item, columns))
    return replace(expression, field=_bind_field(expression.field, columns))


def _bind_field(field: Field, columns: Collection[str]) -> Field:
    if field[0] in columns:
        return field
    for length in range(len(field), 1, -1):
        joined = ".".join(field[:length])
        if joined in columns:
            return (joined, *field[length:])
    raise unknown_column(field[0], columns, "filter")


def unknown_column(name: str, columns: Collection[str], field: str) -> InvalidArgument:
    """The error for a column that does not exist."""
    known = sorted(columns)
    shown = ", ".join(known[:_SHOWN_COLUMNS]) + (f" and {len(known) - _SHOWN_COLUMNS} more" * (len(known) > 30))
    return InvalidArgument(f"There is no column '{name[:80]}': the columns are {shown or '(none)'}.", field=field)
