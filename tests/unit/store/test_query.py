"""Pages over a server that sorts by one field and knows no second one: complete, in order, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.store.codec import Document
from penstock.store.query import Span, compile_query, run

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=60)


class Server:
    """Answers like MongoDB, with ties in an order of its own."""

    def __init__(self, rows: list[tuple[int, int]]) -> None:
        self.documents: list[Document] = [
            {"_id": f"k{n:03d}", "at": at, "kind": kind} for n, (at, kind) in enumerate(rows)
        ]
        self.calls = 0

    async def fetch(self, filter: Document, sort: tuple[str, int] | None, limit: int | None) -> list[Document]:
        self.calls += 1
        found = [d for d in self.documents if all(_matches(d[name], wanted) for name, wanted in filter.items())]
        found.sort(key=lambda d: hash((d["_id"], self.calls)))
        if sort:
            found.sort(key=lambda d: d[sort[0]], reverse=sort[1] < 0)
        return found[:limit] if limit else found


def _matches(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    tests: dict[str, Callable[[Any], bool]] = {
        "$in": lambda ends: value in ends,
        "$gte": lambda end: value >= end,
        "$gt": lambda end: value > end,
        "$lte": lambda end: value <= end,
        "$lt": lambda end: value < end,
    }
    return all(tests[operator](end) for operator, end in wanted.items())


@given(ROWS, st.integers(1, 9), st.booleans(), st.integers(0, 4), st.integers(0, 3))
async def test_pages_are_the_whole_in_pieces(
    rows: list[tuple[int, int]], limit: int, descending: bool, low: int, condition: int
) -> None:
    server = Server(rows)
    eq: dict[str, Any] | None = {"kind": 1} if condition == 1 else {"at": 2} if condition == 2 else None
    span = Span("at", gte=low, lt=6) if condition == 0 else None
    any_of = {"at": [1, 2, 5]} if condition == 3 else None
    query = compile_query(lambda name: name, eq, any_of, span, "at", descending)

    def even(document: Document) -> bool:
        return int(document["_id"][1:]) % 2 == 0

    expected = [d for d in server.documents if all(_matches(d[k], w) for k, w in query.filters[0].items()) and even(d)]
    expected.sort(key=lambda d: (d["at"], d["_id"]), reverse=descending)
    found: list[Document] = []
    after = None
    for _ in range(len(rows) + 2):
        page = await run(query, server.fetch, limit, after, even)
        assert len(page) <= limit
        found += page
        after = page.next
        if after is None:
            break
    assert found == expected and after is None
    assert await run(query, server.fetch, None, None, even) == expected
