"""Typed filters and stable pages: all that repositories can ask, and all that every server answers alike.

Equality and `$in` on declared fields, one range, one sort field. Ties of the sort field are broken by id here, since
no portable index has two fields: a group of equal values that a limit cut is read whole by equality.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from penstock.errors import InvalidArgument
from penstock.store.codec import Document, Scalar, encode_scalar

T = TypeVar("T")
MAX_IN = 100  # values of one `$in`: SecantusDB needs seconds for thousands
_SLACK = 8  # documents read beyond a page, so that small groups of ties need no second query

FieldName = Callable[[str], str]


class Fetch(Protocol):
    """Run a query: filter, sort (field, direction) or none, limit or none."""

    def __call__(
        self, filter: Document, sort: tuple[str, int] | None, limit: int | None
    ) -> Awaitable[list[Document]]: ...


@dataclass(frozen=True)
class Span:
    """A range of an indexed field: `gte` or `gt` to `lt` or `lte`, each end open when None."""

    field: str
    gte: Scalar | None = None
    lt: Scalar | None = None
    gt: Scalar | None = None
    lte: Scalar | None = None

    def bounds(self) -> Document:
        """The operators of this range."""
        ends = {"$gte": self.gte, "$gt": self.gt, "$lt": self.lt, "$lte": self.lte}
        return {operator: encode_scalar(end) for operator, end in ends.items() if end is not None}

    def __contains__(self, stored: Any) -> bool:
        compare: dict[str, Callable[[Any, Any], bool]] = {
            "$gte": lambda a, b: a >= b,
            "$gt": lambda a, b: a > b,
            "$lt": lambda a, b: a < b,
            "$lte": lambda a, b: a <= b,
        }
        return stored is not None and all(compare[operator](stored, end) for operator, end in self.bounds().items())


class Page(list[T]):
    """Some results in order; `next` is the cursor to pass as `after` for more, None at the end."""

    def __init__(self, items: Sequence[T] = (), next: str | None = None) -> None:
        super().__init__(items)
        self.next = next

    @property
    def items(self) -> list[T]:
        """The results as a list."""
        return list(self)


@dataclass(frozen=True)
class Query:
    """A checked query in the database's terms. `order` None means by id, without limit or pages."""

    filters: tuple[Document, ...]  # more than one when an `any_of` was cut into portable pieces
    order: str | None
    descending: bool
    residual: tuple[str, Span] | None = None

    def accepts(self, document: Document) -> bool:
        """Whether a range that the server was not asked about holds."""
        return self.residual is None or document.get(self.residual[0]) in self.residual[1]


def compile_query(
    name: FieldName,
    eq: Mapping[str, Scalar] | None,
    any_of: Mapping[str, Sequence[Scalar]] | None,
    span: Span | None,
    order_by: str | None,
    descending: bool,
) -> Query:
    """Check and encode a query; `name` maps a declared field to its stored name and refuses others."""
    base: Document = {name(field): encode_scalar(value) for field, value in (eq or {}).items()}
    residual = None
    if span is not None:
        if order_by is None:
            order_by = span.field
        if order_by == span.field:
            base[name(span.field)] = span.bounds()
        else:
            residual = (name(span.field), span)
    filters = tuple({**base, **choice} for choice in _choices(name, any_of or {}))
    return Query(filters, name(order_by) if order_by else None, descending, residual)


def _choices(name: FieldName, any_of: Mapping[str, Sequence[Scalar]]) -> Iterator[Document]:
    """The `$in` conditions, the first of them with too many values cut into several."""
    encoded = {name(field): sorted({encode_scalar(v) for v in values}, key=str) for field, values in any_of.items()}
    long = [field for field, values in encoded.items() if len(values) > MAX_IN]
    if len(long) > 1:
        raise InvalidArgument(f"Only one condition may have more than {MAX_IN} values.")
    cut = long[0] if long else next(iter(encoded), None)
    if cut is None:
        yield {}
        return
    rest = {field: {"$in": values} for field, values in encoded.items() if field != cut}
    for start in range(0, max(len(encoded[cut]), 1), MAX_IN):
        yield {**rest, cut: {"$in": encoded[cut][start : start + MAX_IN]}}


async def run(
    query: Query, fetch: Fetch, limit: int | None, after: str | None, accept: Callable[[Document], bool]
) -> Page[Document]:
    """The documents of a query in (order, id) order, at most `limit` of those that `accept` takes, after a cursor."""
    if query.order is None or limit is None:
        found = [d for f in query.filters for d in await fetch(f, None, limit) if query.accepts(d) and accept(d)]
        if query.order is not None:
            found = [d for d in found if query.order in d]
        found.sort(key=_position(query.order), reverse=query.descending)
        if after is not None and query.order is not None:
            found = _beyond(found, _parse(after), query)
        return Page(found[:limit] if limit is not None else found)
    merged: list[Document] = []
    for filter in query.filters:
        merged += await _first(query, filter, fetch, limit + 1, after, accept)
    merged.sort(key=_position(query.order), reverse=query.descending)
    page = merged[:limit]
    return Page(page, _cursor(page[-1], query.order) if len(merged) > limit else None)


async def _first(
    query: Query,
    filter: Document,
    fetch: Fetch,
    count: int,
    after: str | None,
    accept: Callable[[Document], bool],
) -> list[Document]:
    """The first `count` accepted documents after a cursor."""
    found: list[Document] = []
    position = _parse(after) if after is not None else None
    while True:
        documents, position, done = await _window(query, filter, fetch, count - len(found), position)
        found += [d for d in documents if query.accepts(d) and accept(d)]
        if done or len(found) >= count:
            return found[:count]


async def _window(
    query: Query, filter: Document, fetch: Fetch, count: int, position: tuple[Any, str | None] | None
) -> tuple[list[Document], tuple[Any, str | None] | None, bool]:
    """Some next documents, complete in every group of ties; the position after them; whether that was all."""
    order = query.order
    assert order is not None
    bounded = _bounded(filter, order, position, query.descending)
    if bounded is None:
        return [], None, True
    limit = count + _SLACK
    while True:
        documents = await fetch(bounded, (order, -1 if query.descending else 1), limit)
        done = len(documents) < limit
        known = [d for d in documents if order in d]
        if known or done:
            break
        limit *= 4  # documents without the field come first on some servers
    if not done:
        last = known[-1][order]
        known = [d for d in known if d[order] != last]
        if len(known) < count:
            known += await fetch({**filter, order: last}, None, None)
        else:
            last = known[-1][order]
        end: tuple[Any, str | None] | None = (last, None)
    else:
        end = None
    known.sort(key=_position(order), reverse=query.descending)
    return _beyond(known, position, query), end, done


def _bounded(
    filter: Document, order: str, position: tuple[Any, str | None] | None, descending: bool
) -> Document | None:
    """`filter` with the range of its order field narrowed to what comes at or after `position`; None: nothing does."""
    if position is None:
        return filter
    value, id = position
    present = filter.get(order)
    if isinstance(present, dict) and "$in" in present:
        values = [v for v in present["$in"] if (v == value and id) or (v < value if descending else v > value)]
        return {**filter, order: {"$in": values}} if values else None
    if present is not None and not isinstance(present, dict):
        return filter if id else None  # one group, fixed by equality
    drop, operator = (("$lt", "$lte"), "$lte") if descending else (("$gt", "$gte"), "$gte")
    bounds = {key: end for key, end in (present or {}).items() if key not in drop}
    return {**filter, order: {**bounds, operator if id else operator[:3]: value}}


def _beyond(documents: list[Document], position: tuple[Any, str | None] | None, query: Query) -> list[Document]:
    if position is None:
        return documents
    value, id = position
    order = query.order or "_id"
    if id is None:
        return [d for d in documents if (d[order] < value if query.descending else d[order] > value)]
    here = (value, id)
    key = _position(order)
    return [d for d in documents if (key(d) < here if query.descending else key(d) > here)]


def _position(order: str | None) -> Callable[[Document], Any]:
    if order is None:
        return lambda document: document["_id"]
    return lambda document: (document[order], document["_id"])


def _cursor(document: Document, order: str) -> str:
    return json.dumps([document[order], document["_id"]], separators=(",", ":"))


def _parse(cursor: str) -> tuple[Any, str | None]:
    try:
        value, id = json.loads(cursor)
    except (ValueError, TypeError) as error:
        raise InvalidArgument("The page token is not one of this query.", field="page_token") from error
    return value, id
