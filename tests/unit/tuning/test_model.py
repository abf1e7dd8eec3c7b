"""What a study counts, when it gives up, and which trial is its best."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock.api.event.v1 import events_pb2 as events
from penstock.errors import FailedPrecondition
from services.tuning import model
from services.tuning.model import Range, Study, StudyState, Told, Trial, TrialState

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def study(**more: Any) -> Study:
    fields: dict[str, Any] = {
        "name": "projects/p/studies/s",
        "project": "p",
        "author": "mo",
        "created": NOW,
        "template": {"datasetVersion": "projects/p/datasets/d/versions/1"},
        "space": (Range("x", "float", 0, 1),),
        "metric": "accuracy",
        "maximize": True,
        "max_trials": 10,
        "parallelism": 2,
        "sampler": "TPE",
        "seed": 0,
        "model": "m",
    }
    return Study(**{**fields, **more})


def trial(number: int, told: Told) -> Trial:
    name = f"projects/p/studies/s/trials/{number}"
    fresh = Trial(name, "projects/p/studies/s", number, {"x": 0.5}, {"x": 0.5}, NOW, run=f"projects/p/runs/r{number}")
    return model.tell(fresh, told, NOW)


def counted(start: Study, *trials: Trial) -> tuple[Study, list[Any]]:
    facts: list[Any] = []
    for found in trials:
        start, new = model.count(start, found)
        facts += new
    return start, facts


def twice() -> tuple[Study, list[Any]]:
    one = trial(1, Told(value=0.5))
    return counted(study(), one, trial(2, Told(reason="bad")), one, trial(2, Told(reason="bad")))


def test_a_trial_is_told_once() -> None:
    told = trial(1, Told(value=0.5))
    assert model.tell(told, Told(reason="too late"), NOW) is told
    assert trial(1, Told(reason="gone", cancelled=True)).state is TrialState.CANCELLED


def test_a_trial_is_counted_once() -> None:
    done, facts = twice()
    assert (done.completed, done.failed, len(facts)) == (1, 1, 2)


def test_without_the_marks_a_trial_would_be_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Study, "is_counted", lambda self, number: False)
    done, facts = twice()
    assert (done.completed, done.failed, len(facts)) == (2, 2, 4)


def test_trials_may_be_counted_in_any_order() -> None:
    done, _ = counted(study(), *(trial(n, Told(value=n / 10)) for n in (3, 1, 4)))
    assert (done.counted, done.counted_beyond) == (1, (3, 4))
    done, _ = counted(done, trial(2, Told(value=0.2)))
    assert (done.counted, done.counted_beyond, done.told) == (4, (), 4)


@pytest.mark.parametrize(("maximize", "best"), [(True, 3), (False, 2)])
def test_the_best_is_by_direction_and_of_equal_ones_the_first(maximize: bool, best: int) -> None:
    values = {1: 0.5, 4: 0.9, 3: 0.9, 2: 0.1, 5: 0.1}
    done, _ = counted(study(maximize=maximize), *(trial(n, Told(value=v)) for n, v in values.items()))
    assert (done.best, done.best_run) == (best, f"projects/p/runs/r{best}")


def test_a_negative_or_zero_best_is_a_best() -> None:
    done, _ = counted(study(), trial(1, Told(value=0.0)), trial(2, Told(value=-1.0)))
    assert (done.best, done.best_value) == (1, 0.0)


def test_five_failures_at_first_end_a_study_with_the_last_reason() -> None:
    stopping, _ = counted(study(), *(trial(n, Told(reason=f"reason {n}")) for n in range(1, 6)))
    assert stopping.state is StudyState.STOPPING and "reason 5" in stopping.reason
    failed, facts = model.end_without_best(stopping, NOW)
    assert failed.state is StudyState.FAILED and "reason 5" in failed.reason
    assert isinstance(facts[0], events.StudyFailed)


def test_one_completed_trial_keeps_a_study_going() -> None:
    going, _ = counted(study(), trial(1, Told(value=1)), *(trial(n, Told(reason="bad")) for n in range(2, 10)))
    assert going.state is StudyState.RUNNING and going.failed == 8


def test_cancelled_trials_are_no_failures_and_no_events() -> None:
    done, facts = counted(study(), *(trial(n, Told(cancelled=True)) for n in range(1, 8)))
    assert done.state is StudyState.RUNNING and (done.cancelled, done.told, facts) == (7, 7, [])


def test_what_has_ended_stays_so() -> None:
    done, facts = model.succeed(study(best=1, completed=1), "projects/p/models/m/versions/1", "t", NOW)
    assert done.state is StudyState.SUCCEEDED and len(facts) == 1
    assert model.succeed(done, "other", "t", NOW) == (done, ())
    assert model.end_without_best(done, NOW) == (done, ())
    assert model.count(done, trial(2, Told(value=1)))[0] is done
    with pytest.raises(FailedPrecondition):
        model.stop(done)


def test_stopping_twice_is_stopping_once() -> None:
    stopping = model.stop(study())
    assert model.stop(stopping) is stopping
    cancelled, _ = model.end_without_best(stopping, NOW)
    assert cancelled.state is StudyState.CANCELLED
    done, _ = model.succeed(replace(stopping, best=1, completed=1), "v", "t", NOW)
    assert "stopped after 1 of 10" in done.reason
