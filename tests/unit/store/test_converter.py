"""Dataclasses to documents and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any

import pytest
from cattrs.errors import ClassValidationError

from penstock.store.converter import from_document, to_document


class State(Enum):
    DONE = "DONE"


class Role(StrEnum):
    ADMIN = "admin"


@dataclass(frozen=True)
class Inner:
    at: datetime
    note: str | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    required: int | None
    role: Role = Role.ADMIN
    state: State = State.DONE
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    by_key: Mapping[str, Inner] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    pairs: tuple[tuple[str, int], ...] = ()
    anything: Any = None
    value: str | int | float | bool | None = None


MOMENT = datetime(2026, 11, 20, 12, 0, 0, 5000, tzinfo=UTC)


def test_everything_comes_back() -> None:
    value = Outer(
        "x",
        None,
        Role.ADMIN,
        State.DONE,
        Inner(MOMENT, "n"),
        (Inner(MOMENT),),
        {"a.b": Inner(MOMENT)},
        {"$x": float("inf"), "y": 1.0},
        (("a", 1),),
        {"k.1": [1, None, {"$d": True}]},
        True,
    )
    assert from_document(to_document(value), Outer) == value


def test_none_is_left_out_and_comes_back() -> None:
    document = to_document(Outer("x", None))
    assert not {"required", "inner", "anything", "value"} & set(document)
    assert from_document(document, Outer) == Outer("x", None)


@pytest.mark.parametrize("value", ["1", 1, 1.5, True, None])
def test_a_union_of_plain_types_keeps_the_type(value: Any) -> None:
    found = from_document(to_document(Outer("x", 1, value=value)), Outer).value
    assert found == value and type(found) is type(value)


def test_unknown_fields_are_ignored_and_missing_ones_have_their_default() -> None:
    assert from_document({"name": "x", "gone": 1}, Outer) == Outer("x", None)


def test_a_missing_required_field_is_an_error() -> None:
    with pytest.raises(ClassValidationError):
        from_document({}, Outer)
