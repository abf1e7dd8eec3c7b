"""Overlays of drafts: as a plain mapping would be, whatever was added in which pieces."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from services.dataset.layers import Batch, Change, Layered, Overlay, apply
from services.dataset.model import Edit

EDIT = Edit("ana", datetime(2026, 11, 20, tzinfo=UTC), "", "person", "mine")
Batches: TypeAlias = list[list[tuple[str, str | None]]]
KEYS = st.sampled_from("abcdefghij")
TEXTS = st.one_of(st.none(), st.sampled_from(["{}", '{"v":1}']))
BATCHES: st.SearchStrategy[Batches] = st.lists(st.lists(st.tuples(KEYS, TEXTS), min_size=1, max_size=3), max_size=12)


@given(BATCHES)
def test_an_overlay_is_what_its_batches_say_in_order_and_earlier_ones_stay(
    batches: list[list[tuple[str, str]]],
) -> None:
    overlay: Overlay = {}
    plain: dict[str, Change] = {}
    seen: list[tuple[Overlay, dict[str, Change]]] = []
    for base, changes in enumerate(batches):
        overlay = apply(overlay, [(Batch(EDIT, tuple(changes)), base)], {})
        plain |= {key: Change(text, EDIT, base) for key, text in changes}
        seen.append((overlay, dict(plain)))
    for one, expected in seen:
        assert dict(one) == expected and len(one) == len(expected) and sorted(one) == sorted(expected)
        assert all(key in one for key in expected) and "z" not in one


def test_an_edit_copies_a_few_changes_of_many() -> None:
    many = tuple((f"k{n}", "{}") for n in range(10_000))
    overlay = apply({}, [(Batch(EDIT, many), 1)], {})
    below, copied = overlay, 0
    for n in range(1_000):
        overlay = apply(overlay, [(Batch(EDIT, ((f"k{n}", '{"v":1}'),)), 1)], {})
        if isinstance(overlay, Layered) and overlay.below is below:
            copied += len(overlay.above)
        else:
            below = overlay
            copied += len(overlay)
    assert copied < 1_000 * 10_000 / 50
