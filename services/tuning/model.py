"""A study and its trials, and how they change. Values and pure transitions, no I/O.

Two documents: each trial is its own, told once by compare-and-set; the study counts what was told, in the same write as
the event. `counted` says up to which trial everything is in the counts, `counted_beyond` which ones after that, so
counting a trial again changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from penstock.api.event.v1 import events_pb2 as events
from penstock.errors import FailedPrecondition
from penstock.rpc.structs import to_struct

FIRST_FAILURES = 5  # so many trials that all failed, before any was completed, end a study
Point = dict[str, float]  # the place in the search space: a number, or the index of a category


class StudyState(enum.StrEnum):
    """Where a study is. RUNNING -> (STOPPING ->) one of the three final states."""

    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


FINAL = frozenset({StudyState.SUCCEEDED, StudyState.FAILED, StudyState.CANCELLED})
UNFINISHED = (StudyState.RUNNING, StudyState.STOPPING)


class TrialState(enum.StrEnum):
    """Where a trial is."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class Range:
    """One searched parameter: `kind` is float, int or categorical; both ends belong to the range."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def value(self, position: float) -> Any:
        """The parameter's value at a position of a point."""
        if self.kind == "categorical":
            return self.choices[int(position)]
        return int(position) if self.kind == "int" else float(position)


@dataclass(frozen=True)
class Study:
    """A study. `template` is the run of a trial without its searched parameters, as proto-JSON of training's Run.

    `best` is the number of the best completed trial, 0 before there is one. `stopping` says why no more trials are
    asked for: cancelled or failing.
    """

    name: str
    project: str
    author: str
    created: datetime
    template: dict[str, Any]
    space: tuple[Range, ...]
    metric: str
    maximize: bool
    max_trials: int
    parallelism: int
    sampler: str
    seed: int
    model: str
    correlation_id: str = ""
    traceparent: str = ""
    state: StudyState = StudyState.RUNNING
    reason: str = ""
    stopping: str = ""
    counted: int = 0
    counted_beyond: tuple[int, ...] = ()
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    last_failure: str = ""
    best: int = 0
    best_value: float = 0.0
    best_run: str = ""
    model_version: str = ""
    ended: datetime | None = None

    @property
    def dataset_version(self) -> str:
        """The dataset version that all trials train on."""
        return str(self.template.get("datasetVersion", ""))

    @property
    def told(self) -> int:
        """How many trials are in the counts."""
        return self.completed + self.failed + self.cancelled

    def is_counted(self, number: int) -> bool:
        """Whether a trial is in the counts."""
        return number <= self.counted or number in self.counted_beyond


@dataclass(frozen=True)
class Trial:
    """One place in the search space, and what came of it. `run` is empty until its run was created."""

    name: str
    study: str
    number: int
    point: Point
    parameters: dict[str, Any]
    created: datetime
    state: TrialState = TrialState.RUNNING
    value: float | None = None
    run: str = ""
    reason: str = ""
    ended: datetime | None = None


@dataclass(frozen=True)
class Told:
    """What came of a trial's run: a value, or why there is none; `cancelled` if somebody wanted it so."""

    value: float | None = None
    reason: str = ""
    cancelled: bool = False


Change = tuple[Study, tuple[Message, ...]]
Transition = Callable[[Study], Change]


def begin(study: Study) -> Change:
    """A new study, as its first document says it."""
    started = events.StudyStarted(study=study.name, dataset_version=study.dataset_version, subject=study.author)
    return study, (started,)


def give_run(trial: Trial, run: str) -> Trial:
    """The trial with its run; the trial itself if it has one."""
    return trial if trial.run else replace(trial, run=run)


def tell(trial: Trial, told: Told, now: datetime) -> Trial:
    """The trial with its outcome; the trial itself if it was told before."""
    if trial.state is not TrialState.RUNNING:
        return trial
    if told.cancelled:
        state = TrialState.CANCELLED
    else:
        state = TrialState.FAILED if told.value is None else TrialState.COMPLETED
    return replace(trial, state=state, value=told.value, reason=told.reason, ended=now)


def count(study: Study, trial: Trial) -> Change:
    """The study with a told trial in its counts, once; the study itself if it is in them already."""
    if study.is_counted(trial.number) or study.state in FINAL:
        return study, ()
    counted = _mark(study, trial.number)
    if trial.state is TrialState.CANCELLED:
        return replace(counted, cancelled=study.cancelled + 1), ()
    names = {"study": study.name, "trial": trial.name, "run": trial.run}
    if trial.value is None:
        failed = replace(counted, failed=study.failed + 1, last_failure=trial.reason)
        return _give_up(failed), (events.TrialFailed(**names, reason=trial.reason),)
    completed = replace(counted, completed=study.completed + 1)
    if _is_better(study, trial):
        completed = replace(completed, best=trial.number, best_value=trial.value, best_run=trial.run)
    fact = events.TrialCompleted(**names, value=trial.value, parameters=to_struct(trial.parameters))
    return completed, (fact,)


def _mark(study: Study, number: int) -> Study:
    up_to, beyond = study.counted, {*study.counted_beyond, number}
    while up_to + 1 in beyond:
        up_to += 1
        beyond.discard(up_to)
    return replace(study, counted=up_to, counted_beyond=tuple(sorted(beyond)))


def _is_better(study: Study, trial: Trial) -> bool:
    """Whether a trial beats the best so far; of equal ones, the lower number is the best."""
    value = trial.value or 0.0
    if not study.best or value == study.best_value:
        return not study.best or trial.number < study.best
    return value > study.best_value if study.maximize else value < study.best_value


def _give_up(study: Study) -> Study:
    if study.state is not StudyState.RUNNING or study.completed or study.failed < FIRST_FAILURES:
        return study
    reason = f"The first {study.failed} trials failed. The last one: {study.last_failure}"
    return replace(study, state=StudyState.STOPPING, stopping="failing", reason=reason)


def stop(study: Study) -> Study:
    """Ask a study to stop. Raises FailedPrecondition for one that has ended."""
    if study.state in FINAL:
        raise FailedPrecondition(f"{study.name} cannot be stopped: it has ended ({study.state}).")
    if study.state is StudyState.STOPPING:
        return study
    return replace(study, state=StudyState.STOPPING, stopping="cancelled", reason="is being stopped")


def succeed(study: Study, model_version: str, best_trial: str, now: datetime) -> Change:
    """End a study that has a best trial, whose model version is there. The study itself if it has ended."""
    if study.state in FINAL:
        return study, ()
    reason = f"stopped after {study.told} of {study.max_trials} trials" if study.stopping else ""
    done = replace(study, state=StudyState.SUCCEEDED, reason=reason, model_version=model_version, ended=now)
    fact = events.StudyCompleted(
        study=study.name,
        dataset_version=study.dataset_version,
        best_trial=best_trial,
        best_value=study.best_value,
        best_run=study.best_run,
        model_version=model_version,
        trials=study.told,
    )
    return done, (fact,)


def end_without_best(study: Study, now: datetime, reason: str = "") -> Change:
    """End a study that has no trial to choose, or (with a `reason`) whose choice cannot be used."""
    if study.state in FINAL:
        return study, ()
    if study.stopping == "cancelled" and not reason:
        done = replace(study, state=StudyState.CANCELLED, reason="stopped before a trial was completed", ended=now)
    else:
        text = reason or study.reason or f"All {study.failed} trials failed. The last one: {study.last_failure}"
        done = replace(study, state=StudyState.FAILED, reason=text, ended=now)
    return done, (events.StudyFailed(study=study.name, reason=done.reason),)
