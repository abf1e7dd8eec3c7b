"""Whose draft is whose: one name an actor, and no two actors one name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import names
from services.dataset.own_draft import own_draft

# What is easily taken for one another: cases, separators, what looks like a hash, and texts at the longest.
ACTORS = st.one_of(
    st.text(st.sampled_from("aA1-._@ é"), min_size=1, max_size=70),
    st.text(min_size=1, max_size=70),
    st.text(st.sampled_from("Aa-"), min_size=1, max_size=3).map(lambda text: own_draft(text).removeprefix("draft-")),
)


@pytest.mark.parametrize(
    ("actor", "draft"),
    [
        ("ann", "draft-ann"),
        ("ann-lee-2", "draft-ann-lee-2"),
        ("x" * 57, "draft-" + "x" * 57),
        ("Ann", "draft-ann--17239b6e2501"),
        ("ann--lee", "draft-ann-lee--0f510906e733"),
        ("ann@example.org", "draft-ann-example-org--438c4c7afe60"),
        ("安", "draft-me--77f34a38180f"),
    ],
)
def test_a_draft_is_named_after_its_actor_as_far_as_that_goes(actor: str, draft: str) -> None:
    assert own_draft(actor) == draft


@given(ACTORS, ACTORS)
def test_no_two_actors_have_one_draft(one: str, other: str) -> None:
    assert names.check_id(own_draft(one), "draft") == own_draft(one)
    assert (own_draft(one) == own_draft(other)) == (one == other)
