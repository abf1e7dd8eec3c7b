"""Values in the form that every server compares alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InvalidArgument
from penstock.store.codec import (
    decode_id,
    decode_scalar,
    decode_tree,
    encode_id,
    encode_scalar,
    encode_tree,
    format_time,
    now,
    parse_time,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


class State(Enum):
    DONE = "DONE"


@given(TEXT.filter(bool))
def test_ids_come_back_and_never_look_like_dates(id: str) -> None:
    stored = encode_id(id)
    assert decode_id(stored) == id
    assert not stored.strip()[:1].isdigit()


@given(TEXT.filter(bool), TEXT.filter(bool))
def test_different_ids_stay_different(one: str, other: str) -> None:
    assert (encode_id(one) == encode_id(other)) == (one == other)


@given(TEXT | INTEGERS | FLOATS | st.booleans() | TIMES)
def test_scalars_come_back(value: Any) -> None:
    found = decode_scalar(encode_scalar(value))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("values", [TEXT, TIMES, INTEGERS, FLOATS])
def test_scalars_keep_their_order(values: st.SearchStrategy[Any]) -> None:
    @given(values, values)
    def check(one: Any, other: Any) -> None:
        assert (encode_scalar(one) < encode_scalar(other)) == (one < other)  # type: ignore[operator]

    check()


@given(JSON)
def test_json_comes_back_and_has_no_keys_that_mean_something(value: Any) -> None:
    stored = encode_tree(value)
    assert decode_tree(stored) == value

    def keys(tree: Any) -> list[str]:
        if isinstance(tree, dict):
            return [*tree, *(key for item in tree.values() for key in keys(item))]
        return [key for item in tree for key in keys(item)] if isinstance(tree, list) else []

    assert not any(set(key) & set(".$\x00") for key in keys(stored))


def test_what_json_has_not_is_put_into_words() -> None:
    moment = datetime(2026, 11, 20, 13, tzinfo=timezone(timedelta(hours=1)))
    found = encode_tree({"a": float("nan"), "b": (float("inf"), -float("inf")), "c": moment, "d": State.DONE})
    assert found == {"a": "NaN", "b": ["Infinity", "-Infinity"], "c": "2026-11-20T12:00:00.000Z", "d": "DONE"}


@pytest.mark.parametrize("value", [2**63, datetime(2026, 1, 1), {1, 2}, object()])
def test_what_cannot_be_stored_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument):
        encode_tree({"a": value})
    with pytest.raises(InvalidArgument):
        encode_scalar(value)


def test_the_present_is_cut_to_what_is_stored() -> None:
    moment = now()
    assert parse_time(format_time(moment)) == moment


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        encode_id("")
