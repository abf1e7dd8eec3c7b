"""Pipelines, their runs, windows of debounced causes, and what may follow what. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from penstock import names
from penstock.errors import FailedPrecondition

DEFAULT_RECURRENCE = 3
# A window is one document: it fires before it becomes too large to be stored.
MAX_CAUSES = 500
MAX_CAUSE_BYTES = 4 * 1024 * 1024


class RunState(StrEnum):
    """Of a pipeline run."""

    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether nothing follows by itself."""
        return self not in (RunState.RUNNING, RunState.CANCELLING)


class StepState(StrEnum):
    """Of one step of a run."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


class Outcome(StrEnum):
    """What was decided about an event."""

    FIRED = "FIRED"
    FILTERED = "FILTERED"
    DEBOUNCED = "DEBOUNCED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Trigger:
    """`event` is a type; `filter` CEL; `quiet` and `max_wait` the debounce in seconds (None: none)."""

    event: str
    filter: str = ""
    quiet: float | None = None
    max_wait: float | None = None


@dataclass(frozen=True)
class Step:
    """What to do: an action with settings in which `${…}` is CEL; skipped if `condition` does not hold."""

    id: str
    action: str
    settings: Mapping[str, Any]
    condition: str = ""


@dataclass(frozen=True)
class Pipeline:
    """A rule and its steps, as applied the `generation`-th time by `author`, on whose behalf it acts."""

    name: str
    project: str
    description: str
    trigger: Trigger
    steps: tuple[Step, ...]
    max_recurrence: int
    paused: bool
    generation: int
    author: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True)
class Cause:
    """An event that caused, or may cause, a run; what of it must be known later.

    `key` is its id among all events of the project; `event_id` is what its source calls it.
    """

    key: str
    event_id: str
    type: str
    source: str
    subject: str
    time: datetime
    data: Mapping[str, Any]
    correlation_id: str
    traceparent: str = ""
    causation_id: str = ""


@dataclass(frozen=True)
class Window:
    """Causes gathered until `fire_at`, which moves with each of them but never beyond `deadline`.

    Both follow from the first cause. OPEN while `run` is empty; firing freezes the causes and names the run in one
    write. `size` is that of the causes' data in bytes.
    """

    pipeline: str
    project: str
    causes: tuple[Cause, ...] = ()
    fire_at: datetime | None = None
    deadline: datetime | None = None
    size: int = 0
    run: str = ""
    started: bool = False

    def holds(self, key: str) -> bool:
        """Whether the event is among the causes."""
        return any(cause.key == key for cause in self.causes)

    def with_cause(self, cause: Cause, at: datetime, trigger: Trigger) -> Window:
        """The window with one more cause; the same object if it has fired, or has that one already."""
        if self.run or self.holds(cause.key):
            return self
        size = self.size + len(json.dumps(cause.data))
        deadline = self.deadline or at + timedelta(seconds=trigger.max_wait or 0)
        full = len(self.causes) + 1 >= MAX_CAUSES or size >= MAX_CAUSE_BYTES
        fire_at = at if full else min(at + timedelta(seconds=trigger.quiet or 0), deadline)
        return replace(self, causes=(*self.causes, cause), fire_at=fire_at, deadline=deadline, size=size)

    def fired(self, run: str) -> Window:
        """The window, frozen."""
        return self if self.run else replace(self, run=run)


def run_name(pipeline: str, window_id: str) -> str:
    """The name of the run of a window: fixed, so that a window has one run whoever begins it, and how often."""
    return f"{pipeline}/runs/r{window_id.rsplit('/', 1)[1]}"


@dataclass(frozen=True)
class StepRun:
    """One step of a run: the resource that it made and what later steps may refer to.

    RUNNING without a resource: it is being made, and perhaps is already.
    """

    id: str
    action: str
    state: StepState = StepState.WAITING
    resource: str = ""
    reason: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    tries: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True)
class PipelineRun:
    """A run of the steps as they were when it began. It continues the chain of its last cause."""

    name: str
    project: str
    pipeline: str
    author: str
    state: RunState
    causes: tuple[Cause, ...]
    steps: tuple[Step, ...]
    step_runs: tuple[StepRun, ...]
    generation: int
    create_time: datetime
    reason: str = ""
    end_time: datetime | None = None

    @property
    def correlation_id(self) -> str:
        """The chain that it continues."""
        return self.causes[-1].correlation_id

    def current(self) -> int | None:
        """The index of the step to do now; None when all are done."""
        ended = (StepState.SUCCEEDED, StepState.SKIPPED)
        return next((i for i, step in enumerate(self.step_runs) if step.state not in ended), None)

    def with_step(self, index: int, step: StepRun) -> PipelineRun:
        """The run with one step's state replaced."""
        steps = list(self.step_runs)
        steps[index] = step
        return replace(self, step_runs=tuple(steps))

    def outputs(self) -> dict[str, Mapping[str, Any]]:
        """What expressions see as `steps`."""
        return {
            step.id: {**step.outputs, "resource": step.resource, "state": str(step.state)} for step in self.step_runs
        }

    def cancelling(self) -> PipelineRun:
        """The run, asked to stop; raises FailedPrecondition if it ended."""
        if self.state.final:
            raise FailedPrecondition(f"The run has {self.state.lower()} already.")
        return self if self.state is RunState.CANCELLING else replace(self, state=RunState.CANCELLING)

    def retried(self) -> PipelineRun:
        """The failed run, going on at the step that failed; raises FailedPrecondition for any other."""
        if self.state is not RunState.FAILED:
            raise FailedPrecondition(f"Only a failed run can be retried; this one is {self.state.lower()}.")
        steps = tuple(
            replace(s, state=StepState.WAITING, resource="", reason="", end_time=None, tries=s.tries + 1)
            if s.state is StepState.FAILED
            else s
            for s in self.step_runs
        )
        return replace(self, state=RunState.RUNNING, reason="", end_time=None, step_runs=steps)


def begin(pipeline: Pipeline, run_id: str, causes: Sequence[Cause], at: datetime) -> PipelineRun:
    """A run of the pipeline as it is now."""
    project, pipeline_id = pipeline.project, names.parse(pipeline.name).id
    return PipelineRun(
        name=names.build("pipeline_run", project, pipeline_id, run_id),
        project=project,
        pipeline=pipeline.name,
        author=pipeline.author,
        state=RunState.RUNNING,
        causes=tuple(causes),
        steps=pipeline.steps,
        step_runs=tuple(StepRun(step.id, step.action) for step in pipeline.steps),
        generation=pipeline.generation,
        create_time=at,
    )
