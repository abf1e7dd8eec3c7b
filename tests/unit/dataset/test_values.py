"""Canonical JSON, merges, row sums, drafts' states."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.store import Cause, now
from services.dataset.merge import changed_fields, merge
from services.dataset.model import Draft, DraftState, Segment
from services.dataset.values import (
    NO_ROWS,
    BadValue,
    Cleaner,
    Record,
    add_rows,
    check_wire,
    decode,
    encode,
    key_text,
    row_hash,
    to_struct,
)
from tests.unit.dataset.strategies import records


def test_equal_records_have_equal_texts() -> None:
    cleaner = Cleaner()
    assert cleaner.text({"b": 1.0, "a": [2.0, 2.5]}) == cleaner.text({"a": [2, 2.5], "b": 1}) == '{"a":[2,2.5],"b":1}'
    assert cleaner.text({"a": -0.0}) == '{"a":0}'
    assert cleaner.text({"a": True}) != cleaner.text({"a": 1})


def test_null_and_nan_are_missing_and_nan_is_counted() -> None:
    cleaner = Cleaner()
    assert cleaner.record({"a": None, "b": math.nan, "c": [math.nan, 1], "d": {"x": math.nan, "y": None}}) == {
        "c": [None, 1],
        "d": {"y": None},
    }
    assert cleaner.missing == 3


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"n": value}
    return value


@pytest.mark.parametrize(
    ("record", "path", "problem"),
    [
        ({"a": [{"b": math.inf}]}, "a[0].b", "Infinity"),
        ({"a": 2**63}, "a", "64 bits"),
        ({"_key": 1}, "_key", "reserved"),
        ({"": 1}, "", "field name"),
        ({"a\x00": 1}, "", "field name"),
        ({"a": b"x"}, "a", "bytes"),
        ({"a": _nested(30)}, "a" + ".n" * 29, "deeper than 30"),
        ({"a": {"x": ["\ud800"]}}, "a.x[0]", "surrogate"),
        ({"a": "x" * (17 << 20)}, "", "limit"),
    ],
)
def test_what_no_record_may_hold_is_refused_with_its_path(record: Record, path: str, problem: str) -> None:
    with pytest.raises(BadValue, match=problem) as caught:
        Cleaner().text(record)
    assert caught.value.path == path


def test_the_deepest_record_passes_the_wire() -> None:
    record = Cleaner().record({"a": _nested(29)})
    message = to_struct(record)
    assert type(message).FromString(message.SerializeToString()) == message


def test_keys_are_text_or_whole_numbers() -> None:
    assert (key_text("007"), key_text(7)) == ("007", "7")
    refused: tuple[Any, ...] = (1.5, True, None, [], {})
    for bad in refused:
        with pytest.raises(BadValue):
            key_text(bad)


def test_numbers_that_may_have_lost_digits_on_the_wire_are_refused() -> None:
    check_wire({"a": [float(2**53), 1e300, 0.5]}, "put")
    with pytest.raises(InvalidArgument, match=r"put\.a\[0\]"):
        check_wire({"a": [float(2**60)]}, "put")


@given(records)
def test_text_and_back_is_the_same_record(record: Record) -> None:
    assert decode(encode(record)) == record and Cleaner().record(record) == record


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_sums_of_rows_do_not_depend_on_order_and_can_be_undone(rows: dict[str, str]) -> None:
    one = two = NO_ROWS
    for key, text in rows.items():
        one = add_rows(one, row_hash(key, text))
    for key, text in reversed(rows.items()):
        two = add_rows(two, row_hash(key, text))
    assert one == two
    for key, text in rows.items():
        one = add_rows(one, -row_hash(key, text))
    assert one == NO_ROWS


@pytest.mark.parametrize(
    ("base", "theirs", "mine", "record", "conflict"),
    [
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}, None),
        ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}, None),
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3}, {"a": 2, "b": 3}, None),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 3}, ("a",)),
        ({"a": 1}, {"a": 2}, {"a": 2}, {"a": 2}, None),
        ({"a": 1}, {"a": True}, {"a": 1, "b": 2}, {"a": True, "b": 2}, None),
        ({"a": 1, "b": 1}, {"b": 1}, {"a": 1, "b": 2}, {"b": 2}, None),
        ({"a": 1}, {"a": 2}, {}, {}, ("a",)),
        ({"a": 1}, None, {"a": 2}, {"a": 2}, ()),
        ({"a": 1}, {"a": 2}, None, None, ()),
        ({"a": 1}, None, None, None, None),
        (None, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}, None),
        (None, {"a": 1}, {"a": 2}, {"a": 2}, ("a",)),
    ],
)
def test_merges(
    base: Record | None, theirs: Record | None, mine: Record | None, record: Record | None, conflict: Any
) -> None:
    merged = merge(base, theirs, mine)
    assert (merged.record, merged.fields if merged.conflict else None) == (record, conflict)


@given(records, records, records)
def test_a_merge_keeps_what_either_side_alone_changed(base: Record, theirs: Record, mine: Record) -> None:
    merged = merge(base, theirs, mine)
    assert merged.record is not None
    my, their = set(changed_fields(base, mine)), set(changed_fields(base, theirs))
    assert not set(changed_fields({n: merged.record.get(n) for n in my}, {n: mine.get(n) for n in my}))
    rest = their - my
    assert not set(changed_fields({n: merged.record.get(n) for n in rest}, {n: theirs.get(n) for n in rest}))
    assert set(merged.fields) <= my & their


def test_a_batch_that_comes_after_the_freezing_is_in_no_segment() -> None:
    draft = Draft("projects/p/datasets/d", "mine", "ana", "l", now(), now(), (Segment(3),))
    with pytest.raises(FailedPrecondition, match="no changes"):
        draft.freeze("m", "ana", Cause(), now())
    frozen = draft.appended(1, now()).freeze("m", "ana", Cause(), now())
    assert frozen.segments == (Segment(3, 1), Segment(3))
    with pytest.raises(FailedPrecondition):
        frozen.appended(2, now())
    reopened = frozen.conflicted((), 0, 5, now()).appended(2, now())
    assert reopened.segments == (Segment(3, 1), Segment(5, 1)) and reopened.state is DraftState.OPEN
    assert reopened.freeze("m", "ana", Cause(), now()).commit != frozen.commit
    assert replace(frozen, state=DraftState.COMMITTED).settled
