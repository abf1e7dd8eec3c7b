"""An evaluation, what may follow what, and the events of it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from penstock.api.event.v1 import events_pb2
from penstock.errors import FailedPrecondition
from penstock.events import NewEvent

MAX_ATTEMPTS = 3  # what the platform loses is tried again; what the model does wrong is not


class State(StrEnum):
    """Of an evaluation."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class ClassMetrics:
    """One class: precision, recall and F1 (0 to 1), and how many records have the label."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Result:
    """What a job computed. Rows of `confusion` are true labels, columns predicted ones, in the order of `labels`."""

    metrics: Mapping[str, float]
    classes: tuple[ClassMetrics, ...]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    records: int
    predictions: str  # digest of a Parquet file


@dataclass(frozen=True)
class Verdict:
    """Whether the rule holds, and what it was compared with."""

    passed: bool
    rule: str
    baseline: str = ""
    baseline_metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Evaluation:
    """`baseline` is as asked (a model version or an endpoint), `baseline_version` what that was when it began.

    `compared` is the name of the evaluation of the baseline on the same dataset version. `result` is there once an
    attempt's completion was accepted; the verdict may still wait for the baseline then.
    """

    name: str
    project: str
    model_version: str
    dataset_version: str
    rule: str
    baseline: str
    author: str
    create_time: datetime
    state: State = State.QUEUED
    reason: str = ""
    attempt: int = 0
    artifact: str = ""  # digest of the model's tree
    manifest: str = ""  # digest of the dataset version's manifest
    baseline_version: str = ""
    compared: str = ""
    result: Result | None = None
    verdict: Verdict | None = None
    end_time: datetime | None = None
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""

    def begin(self, artifact: str, manifest: str, baseline_version: str, compared: str) -> Evaluation:
        """The evaluation with what it needs found, at its first attempt."""
        if self.state is not State.QUEUED:
            return self
        return replace(
            self,
            state=State.RUNNING,
            attempt=1,
            artifact=artifact,
            manifest=manifest,
            baseline_version=baseline_version,
            compared=compared,
        )

    def accept(self, attempt: int, result: Result) -> Evaluation:
        """The evaluation with the one accepted completion; another attempt's changes nothing."""
        if self.state is not State.RUNNING or self.attempt != attempt or self.result is not None:
            return self
        return replace(self, result=result)

    def lose(self, attempt: int, reason: str, at: datetime) -> Evaluation | tuple[Evaluation, list[NewEvent]]:
        """The next attempt after one that the platform lost; failed after the last one."""
        if self.state is not State.RUNNING or self.attempt != attempt or self.result is not None:
            return self
        if attempt >= MAX_ATTEMPTS:
            return self.fail(f"{reason} It was tried {attempt} times.", at)
        return replace(self, attempt=attempt + 1, reason=reason)

    def fail(self, reason: str, at: datetime) -> Evaluation | tuple[Evaluation, list[NewEvent]]:
        """The evaluation, ended without metrics."""
        if self.state.final or self.state is State.CANCELLING:
            return self
        return self._ended_without_metrics(State.FAILED, reason, at)

    def _ended_without_metrics(self, state: State, reason: str, at: datetime) -> tuple[Evaluation, list[NewEvent]]:
        event = events_pb2.EvaluationFailed(
            evaluation=self.name,
            model_version=self.model_version,
            dataset_version=self.dataset_version,
            reason=reason,
        )
        return replace(self, state=state, reason=reason, end_time=at), [NewEvent.of(event)]

    def finish(self, verdict: Verdict | None, at: datetime) -> Evaluation | tuple[Evaluation, list[NewEvent]]:
        """The evaluation with its verdict (None without a rule), and the events that say so."""
        if self.state is not State.RUNNING or self.result is None:
            return self
        completed = events_pb2.EvaluationCompleted(
            evaluation=self.name,
            model_version=self.model_version,
            dataset_version=self.dataset_version,
            metrics=self.result.metrics,
        )
        events = [NewEvent.of(completed)]
        if verdict is not None:
            events.append(NewEvent.of(self._verdict_event(verdict, self.result)))
        return replace(self, state=State.SUCCEEDED, verdict=verdict, reason="", end_time=at), events

    def _verdict_event(self, verdict: Verdict, result: Result) -> events_pb2.VerdictPassed | events_pb2.VerdictFailed:
        facts = {
            "evaluation": self.name,
            "model_version": self.model_version,
            "dataset_version": self.dataset_version,
            "rule": verdict.rule,
            "baseline": verdict.baseline,
            "metrics": result.metrics,
            "baseline_metrics": verdict.baseline_metrics,
        }
        if verdict.passed:
            return events_pb2.VerdictPassed(**facts)  # type: ignore[arg-type]
        return events_pb2.VerdictFailed(**facts, reason=verdict.reason)  # type: ignore[arg-type]

    def cancelling(self) -> Evaluation:
        """The evaluation, asked to stop; raises FailedPrecondition if it ended."""
        if self.state.final:
            raise FailedPrecondition(f"The evaluation has {self.state.lower()} already.")
        return self if self.state is State.CANCELLING else replace(self, state=State.CANCELLING)

    def cancelled(self, at: datetime) -> Evaluation | tuple[Evaluation, list[NewEvent]]:
        """The evaluation, of which nothing runs any more, and the event that tells who waits for it."""
        if self.state is not State.CANCELLING:
            return self
        return self._ended_without_metrics(State.CANCELLED, "cancelled", at)
