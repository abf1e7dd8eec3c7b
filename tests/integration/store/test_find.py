"""Filters and pages against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from penstock.errors import InvalidArgument
from penstock.store import Aggregates, Database, Span, Stored
from tests.integration.store.sample import Run, State, name, runs_in

START = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
STATES = list(State)


async def filled(database: Database, count: int = 30) -> Aggregates[Run]:
    """Run n is of project p(n mod 2), state n mod 3, has n // 4 steps, and was created n ms after START."""
    runs = await runs_in(database)
    await asyncio.gather(
        *(
            runs.create(
                name(f"r{n:03d}"),
                Run(f"p{n % 2}", STATES[n % 3], n // 4, START + timedelta(milliseconds=n), alias=f"a{n}"),
            )
            for n in range(count)
        )
    )
    return runs


def numbers(found: Sequence[Stored[Run]]) -> list[int]:
    return [int(stored.id[-3:]) for stored in found]


async def test_equality_and_alternatives_are_combined(database: Database) -> None:
    runs = await filled(database)
    found = await runs.find(eq={"project": "p1"}, any_of={"state": [State.QUEUED, State.RUNNING]})
    assert numbers(found) == [n for n in range(30) if n % 2 == 1 and n % 3 in (0, 1)]


async def test_more_than_a_hundred_alternatives_are_asked_in_parts(database: Database) -> None:
    runs = await filled(database)
    wanted = [f"a{n}" for n in range(5, 250)]
    assert numbers(await runs.find(any_of={"alias": wanted})) == list(range(5, 30))
    page = await runs.find(any_of={"alias": wanted}, order_by="created", limit=10)
    assert numbers(page) == list(range(5, 15))
    assert numbers(await runs.find(any_of={"alias": wanted}, order_by="created", limit=99, after=page.next)) == list(
        range(15, 30)
    )


async def test_no_alternatives_find_nothing(database: Database) -> None:
    runs = await filled(database, 3)
    assert await runs.find(any_of={"state": []}) == []


@pytest.mark.parametrize("descending", [False, True])
async def test_a_span_of_times_is_exact_to_the_millisecond(database: Database, descending: bool) -> None:
    runs = await filled(database)
    at = [START + timedelta(milliseconds=n) for n in range(31)]
    for span, wanted in (
        (Span("created", at[3], at[7]), range(3, 7)),
        (Span("created", gt=at[3], lte=at[7]), range(4, 8)),
        (Span("created", lt=at[2]), range(2)),
        (Span("created", gte=at[28]), range(28, 30)),
    ):
        expected = list(reversed(wanted)) if descending else list(wanted)
        assert numbers(await runs.find(span=span, descending=descending)) == expected
        assert numbers(await runs.find(span=span, descending=descending, limit=50)) == expected
    both = await runs.find(eq={"project": "p0"}, span=Span("created", at[3], at[9]), limit=2)
    assert numbers(both) == [4, 6]


async def test_a_span_of_another_field_than_the_order_is_applied(database: Database) -> None:
    runs = await filled(database)
    page = await runs.find(span=Span("steps", 2, 4), order_by="created", descending=True, limit=5)
    assert numbers(page) == [15, 14, 13, 12, 11]


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 30])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order_by", [None, "created", "steps", "project"])
async def test_pages_hold_every_result_once_in_order(
    database: Database, order_by: str | None, descending: bool, limit: int
) -> None:
    runs = await filled(database)
    keys: dict[str | None, Callable[[int], int]] = {
        "created": lambda n: n,
        "steps": lambda n: n // 4,
        "project": lambda n: n % 2,
        None: lambda n: 0,
    }
    key = keys[order_by]
    expected = sorted(range(30), key=lambda n: (key(n), n), reverse=descending)
    found: list[int] = []
    after = None
    while True:
        page = await runs.find(order_by=order_by, descending=descending, limit=limit, after=after)
        assert len(page) <= limit
        found += numbers(page)
        after = page.next
        if after is None:
            break
    assert found == expected


@pytest.mark.parametrize("condition", [{"eq": {"steps": 3}}, {"any_of": {"steps": [2, 3, 5]}}])
async def test_pages_ordered_by_the_field_of_a_condition_end(database: Database, condition: dict[str, object]) -> None:
    runs = await filled(database)
    everything = numbers(await runs.find(order_by="steps", **condition))  # type: ignore[arg-type]
    found: list[int] = []
    after = None
    for _ in range(20):
        page = await runs.find(order_by="steps", limit=3, after=after, **condition)  # type: ignore[arg-type]
        found += numbers(page)
        after = page.next
        if after is None:
            break
    assert found == everything and after is None


async def test_a_condition_in_code_fills_its_pages(database: Database) -> None:
    runs = await filled(database)
    page = await runs.find(order_by="created", limit=4, where=lambda run: run.steps % 2 == 1)
    assert numbers(page) == [4, 5, 6, 7]
    page = await runs.find(order_by="created", limit=4, where=lambda run: run.steps % 2 == 1, after=page.next)
    assert numbers(page) == [12, 13, 14, 15]


async def test_undeclared_fields_and_foreign_cursors_are_refused(database: Database) -> None:
    runs = await filled(database, 1)
    with pytest.raises(ValueError, match="not declared"):
        await runs.find(eq={"parameters": "x"})
    with pytest.raises(InvalidArgument):
        await runs.find(limit=1, after="nonsense")
