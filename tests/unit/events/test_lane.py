"""What is next, and what is not."""

from __future__ import annotations

import pytest

from penstock.events.lane import Verdict, judge


@pytest.mark.parametrize(
    ("sequence", "cursor", "verdict"),
    [(1, 0, Verdict.NEXT), (2, 0, Verdict.AHEAD), (1, 1, Verdict.OLD), (5, 9, Verdict.OLD), (10, 9, Verdict.NEXT)],
)
def test_only_the_next_event_is_applied(sequence: int, cursor: int, verdict: Verdict) -> None:
    assert judge(sequence, cursor) is verdict
