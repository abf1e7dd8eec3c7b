"""The state machine of a run: every transition, and what fencing refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from penstock.api.event.v1 import events_pb2 as events
from penstock.errors import FailedPrecondition
from services.training import model
from services.training.model import Code, Fenced, Outcome, Run, RunState

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def queued(**fields: object) -> Run:
    run = Run(
        name="projects/p/runs/r1",
        project="p",
        author="mo",
        created=NOW,
        dataset_version="projects/p/datasets/d/versions/1",
        code=Code(algorithm="mlp"),
    )
    return replace(run, **fields)  # type: ignore[arg-type]


def running(**fields: object) -> Run:
    return model.begin(model.pin(queued(**fields), "sha256:m"), NOW)[0]


def test_a_run_begins_only_when_its_manifest_is_pinned() -> None:
    with pytest.raises(Fenced):
        model.begin(queued(), NOW)
    run, facts = model.begin(model.pin(queued(), "sha256:m"), NOW)
    assert (run.state, run.attempt, run.attempts[0].state) == (RunState.RUNNING, 1, "running")
    assert [type(fact) for fact in facts] == [events.RunStarted]


def test_the_manifest_is_pinned_once() -> None:
    run = model.pin(queued(), "sha256:a")
    assert model.pin(run, "sha256:b") is run


def test_success_without_a_model_version_ends_the_run_at_once() -> None:
    run, facts = model.complete(running(), 1, Outcome(metrics={"accuracy": 0.9}, artifact="sha256:t"), NOW)
    assert (run.state, run.accepted, run.metrics) == (RunState.SUCCEEDED, 1, {"accuracy": 0.9})
    assert isinstance(facts[0], events.RunSucceeded) and facts[0].manifest == "sha256:m"


def test_success_with_a_model_version_is_seen_only_with_the_version() -> None:
    accepted, facts = model.complete(running(model="digits"), 1, Outcome(artifact="sha256:t"), NOW)
    assert (accepted.state, accepted.accepted, facts) == (RunState.RUNNING, 1, ())
    done, facts = model.registered(accepted, "projects/p/models/digits/versions/1", NOW)
    assert done.state is RunState.SUCCEEDED and done.model_version.endswith("/1") and len(facts) == 1


def test_a_run_that_waits_for_its_version_can_neither_be_cancelled_nor_completed_again() -> None:
    accepted, _ = model.complete(running(model="digits"), 1, Outcome(artifact="sha256:t"), NOW)
    with pytest.raises(FailedPrecondition):
        model.cancel(accepted, NOW)
    with pytest.raises(Fenced):
        model.complete(accepted, 1, Outcome(), NOW)
    with pytest.raises(Fenced):
        model.lose(accepted, 1, "gone", NOW)


def test_an_error_of_the_user_fails_the_run_at_once() -> None:
    run, facts = model.complete(running(), 1, Outcome(reason="exit code 3", exit_code=3), NOW)
    assert (run.state, run.reason, run.attempts[0].state, run.attempts[0].exit_code) == (
        RunState.FAILED,
        "exit code 3",
        "failed",
        3,
    )
    assert [type(fact) for fact in facts] == [events.RunFailed]


def test_a_lost_attempt_is_made_again_up_to_max_retries() -> None:
    run = running(max_retries=1)
    second, facts = model.lose(run, 1, "the machine went away", NOW)
    assert (second.state, second.attempt, [a.state for a in second.attempts]) == (
        RunState.RUNNING,
        2,
        ["lost", "running"],
    )
    assert isinstance(facts[0], events.RunStarted) and facts[0].attempt == 2
    given_up, facts = model.lose(second, 2, "the machine went away", NOW)
    assert given_up.state is RunState.FAILED and "2 attempts" in given_up.reason
    assert isinstance(facts[0], events.RunFailed)


def test_a_stale_attempt_is_fenced_off() -> None:
    second, _ = model.lose(running(), 1, "lost", NOW)
    transitions: list[Callable[[], object]] = [
        lambda: model.complete(second, 1, Outcome(), NOW),
        lambda: model.lose(second, 1, "lost", NOW),
        lambda: model.complete(second, 3, Outcome(), NOW),
    ]
    for transition in transitions:
        with pytest.raises(Fenced):
            transition()


def test_cancelling_a_queued_run_ends_it_with_its_event() -> None:
    run, facts = model.cancel(queued(), NOW)
    assert run.state is RunState.CANCELLED and [type(fact) for fact in facts] == [events.RunCancelled]


def test_once_cancelling_a_result_no_longer_counts() -> None:
    cancelling, facts = model.cancel(running(), NOW)
    assert cancelling.state is RunState.CANCELLING and not facts
    assert model.cancel(cancelling, NOW)[0] is cancelling
    with pytest.raises(Fenced):
        model.complete(cancelling, 1, Outcome(), NOW)
    with pytest.raises(Fenced):
        model.lose(cancelling, 1, "lost", NOW)
    ended, facts = model.cancelled(cancelling, NOW)
    assert ended.state is RunState.CANCELLED and ended.attempts[-1].state == "cancelled" and len(facts) == 1
    assert model.cancel(ended, NOW)[0] is ended


def test_what_has_ended_cannot_be_cancelled() -> None:
    done, _ = model.complete(running(), 1, Outcome(), NOW)
    with pytest.raises(FailedPrecondition, match="has ended"):
        model.cancel(done, NOW)


def test_metrics_that_are_no_numbers_travel_in_events() -> None:
    _, facts = model.complete(running(), 1, Outcome(metrics={"loss": "NaN", "norm": "Infinity"}), NOW)
    done = facts[0]
    assert isinstance(done, events.RunSucceeded)
    assert str(done.metrics["loss"]) == "nan" and done.metrics["norm"] == float("inf")
