"""What may follow what in an evaluation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from penstock.errors import FailedPrecondition
from services.evaluation.jobs import ref_of
from services.evaluation.model import MAX_ATTEMPTS, Evaluation, Result, State

AT = datetime(2026, 11, 20, tzinfo=UTC)
RESULT = Result({"accuracy": 1.0}, (), (), (), 1, "sha256:x")
QUEUED = Evaluation("projects/p/evaluations/e", "p", "m", "d", "", "", "mo", AT)
RUNNING = QUEUED.begin("sha256:m", "sha256:d", "", "")


def value_of(outcome: Any) -> Evaluation:
    found: Evaluation = outcome[0] if isinstance(outcome, tuple) else outcome
    return found


def test_the_completion_of_another_attempt_changes_nothing() -> None:
    second = value_of(RUNNING.lose(1, "lost", AT))
    assert second.attempt == 2
    assert second.accept(1, RESULT) is second
    assert second.accept(2, RESULT).result is RESULT
    assert ref_of(second, 1).output_prefix != ref_of(second, 2).output_prefix


def test_without_the_attempt_as_a_fence_it_would() -> None:
    """The negative control of the test above."""

    def accept(value: Evaluation, attempt: int, result: Result) -> Evaluation:
        return replace(value, result=result)

    second = value_of(RUNNING.lose(1, "lost", AT))
    assert accept(second, 1, RESULT).result is RESULT


def test_losing_an_attempt_twice_is_losing_it_once() -> None:
    second = value_of(RUNNING.lose(1, "lost", AT))
    assert second.lose(1, "lost", AT) is second


def test_after_the_last_attempt_it_has_failed_with_the_reason() -> None:
    last = replace(RUNNING, attempt=MAX_ATTEMPTS)
    failed = value_of(last.lose(MAX_ATTEMPTS, "gone.", AT))
    assert (failed.state, failed.reason) == (State.FAILED, "gone. It was tried 3 times.")


def test_once_cancelling_is_written_nothing_else_wins() -> None:
    cancelling = RUNNING.cancelling()
    assert cancelling.cancelling() is cancelling
    assert cancelling.accept(1, RESULT) is cancelling
    assert cancelling.fail("x", AT) is cancelling
    assert replace(cancelling, result=RESULT).finish(None, AT).state is State.CANCELLING  # type: ignore[union-attr]
    assert value_of(cancelling.cancelled(AT)).state is State.CANCELLED
    with pytest.raises(FailedPrecondition):
        value_of(cancelling.cancelled(AT)).cancelling()


def test_a_cancelled_one_says_so_once_to_who_waits_for_it() -> None:
    assert RUNNING.cancelled(AT) is RUNNING
    ended, events = cast(Any, RUNNING.cancelling().cancelled(AT))
    assert (ended.state, ended.reason, ended.end_time) == (State.CANCELLED, "cancelled", AT)
    (told,) = events
    assert told.type == "evaluation.failed"
    assert (told.data["evaluation"], told.data["reason"]) == (ended.name, "cancelled")
    assert ended.cancelled(AT) is ended
