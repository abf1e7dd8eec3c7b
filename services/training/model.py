"""A training run and its state machine; models and their versions. Values and pure transitions, no I/O.

A transition takes a run and returns the next one with the facts that this makes true, so that both are written in one
document. `attempt` is the fencing token: whoever reports about an attempt names it, and `fence` refuses all but the
current attempt of a running run. So a run has at most one accepted completion, whoever believes to own it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from penstock.errors import Conflict, FailedPrecondition
from penstock.jobs.spec import Git, Resources
from services.training import facts

Number = float | str  # a double, or the text of NaN, Infinity, -Infinity, which a document cannot hold as numbers
Change = tuple["Run", tuple[Message, ...]]


class RunState(enum.StrEnum):
    """Where a run is. QUEUED -> RUNNING -> (CANCELLING ->) one of the three final states."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
UNFINISHED = tuple(state for state in RunState if state not in FINAL)


@dataclass(frozen=True)
class Code:
    """Where the code comes from: exactly one of a built-in algorithm, a Git repository, the digest of an archive."""

    algorithm: str = ""
    git: Git | None = None
    archive: str = ""

    @property
    def source(self) -> str:
        """One line that says which code it is."""
        if self.git is not None:
            return f"{self.git.url}@{self.git.ref or 'HEAD'}"
        return self.archive or f"algorithm:{self.algorithm}"


@dataclass(frozen=True)
class Artifact:
    """A file that a run made: its path below the output directory."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True)
class Attempt:
    """One try. `state` is running, succeeded, failed, lost or cancelled; `log` the digest of its whole log."""

    number: int
    state: str
    started: datetime
    ended: datetime | None = None
    reason: str = ""
    exit_code: int | None = None
    log: str = ""


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to, as accepted by `complete`. `reason` is empty for a success."""

    reason: str = ""
    exit_code: int | None = None
    log: str = ""
    metrics: Mapping[str, Number] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    artifact: str = ""
    code_commit: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A training run. `author` asked for it; `base_artifact` is the model tree of `base`.

    `correlation_id` and `traceparent` are those of the request: what happens to the run later belongs to that chain.

    `accepted` is the attempt whose result was accepted (0: none yet). A running run that has one is done but for the
    registration of its model's version, which can no longer fail nor be cancelled.
    """

    name: str
    project: str
    author: str
    created: datetime
    dataset_version: str
    code: Code
    command: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    model: str = ""
    base: str = ""
    base_artifact: str = ""
    max_retries: int = 2
    labels: dict[str, str] = field(default_factory=dict)
    trial: str = ""
    correlation_id: str = ""
    traceparent: str = ""
    state: RunState = RunState.QUEUED
    reason: str = ""
    attempt: int = 0
    attempts: tuple[Attempt, ...] = ()
    accepted: int = 0
    manifest: str = ""
    code_commit: str = ""
    metrics: dict[str, Number] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    artifact: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    model_version: str = ""
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def asked(self) -> tuple[Any, ...]:
        """What was asked for: equal for a request and its repetition, whatever a Git ref means by then."""
        code = replace(self.code, git=replace(self.code.git, commit="")) if self.code.git else self.code
        return (self.dataset_version, code, self.command, self.parameters, self.model, self.base, self.resources)

    @property
    def expects_model(self) -> bool:
        """Whether a result without a model is a failure."""
        return bool(self.model or self.trial or self.code.algorithm)


class Fenced(Conflict):
    """Somebody reports about an attempt that is no longer, or not yet, the one that counts."""


def fence(run: Run, attempt: int) -> None:
    """Refuse whatever is not about the current attempt of a running run without a result. Raises Fenced."""
    if run.state is not RunState.RUNNING or run.attempt != attempt or run.accepted:
        raise Fenced(f"Attempt {attempt} of {run.name} is not the one that counts: it is {run.state}, {run.attempt}.")


def fence_cancelling(run: Run) -> None:
    """Refuse to end what is not being cancelled (any more). Raises Fenced."""
    if run.state is not RunState.CANCELLING:
        raise Fenced(f"{run.name} is {run.state}, not CANCELLING.")


def queue(run: Run) -> Change:
    """A new run, as its first document says it."""
    return run, (facts.queued(run),)


def pin(run: Run, manifest: str) -> Run:
    """Fix the manifest that the run reads, once. The run itself if it has one or waits no more."""
    if run.state is not RunState.QUEUED or run.manifest:
        return run
    return replace(run, manifest=manifest, reason="waits for a free slot")


def wait(run: Run, reason: str) -> Run:
    """Say why a queued run waits."""
    return replace(run, reason=reason) if run.state is RunState.QUEUED and run.reason != reason else run


def refuse(run: Run, reason: str, now: datetime) -> Change:
    """A queued run that can never start. Raises Fenced if it is no longer queued."""
    if run.state is not RunState.QUEUED:
        raise Fenced(f"{run.name} is {run.state} already.")
    failed = replace(run, state=RunState.FAILED, reason=reason, ended=now)
    return failed, (facts.failed(failed),)


def begin(run: Run, now: datetime) -> Change:
    """Enter the first attempt: written before anything is started. Raises Fenced unless it is queued and pinned."""
    if run.state is not RunState.QUEUED or not run.manifest:
        raise Fenced(f"{run.name} is {run.state} and cannot begin.")
    return _enter(replace(run, state=RunState.RUNNING, started=now), 1, now)


def lose(run: Run, attempt: int, reason: str, now: datetime, log: str = "") -> Change:
    """The machine failed the attempt: the next one, or FAILED after `max_retries`. Raises Fenced."""
    fence(run, attempt)
    lost = _end_attempt(run, "lost", now, reason, None, log)
    if attempt > run.max_retries:
        tries = f"{attempt} attempt{'s' if attempt > 1 else ''}"
        failed = replace(lost, state=RunState.FAILED, reason=f"Given up after {tries}. Last: {reason}", ended=now)
        return failed, (facts.failed(failed),)
    return _enter(lost, attempt + 1, now)


def complete(run: Run, attempt: int, outcome: Outcome, now: datetime) -> Change:
    """Accept the one completion of a run. Raises Fenced.

    A success that makes a model version stays RUNNING, with `accepted` set, until `registered`: nobody sees SUCCEEDED
    without the version.
    """
    fence(run, attempt)
    state = "failed" if outcome.reason else "succeeded"
    ended = _end_attempt(run, state, now, outcome.reason, outcome.exit_code, outcome.log)
    kept = replace(
        ended,
        accepted=attempt,
        reason=outcome.reason,
        metrics=dict(outcome.metrics),
        artifacts=outcome.artifacts,
        artifact=outcome.artifact,
        code_commit=outcome.code_commit,
        environment=dict(outcome.environment),
    )
    if outcome.reason:
        failed = replace(kept, state=RunState.FAILED, ended=now)
        return failed, (facts.failed(failed),)
    return (kept, ()) if run.model else _succeed(kept, now)


def registered(run: Run, model_version: str, now: datetime) -> Change:
    """The model version is there: SUCCEEDED. Raises Fenced if the run does not wait for that."""
    if run.state is not RunState.RUNNING or not run.accepted:
        raise Fenced(f"{run.name} is {run.state} and waits for no model version.")
    return _succeed(replace(run, model_version=model_version), now)


def forsake(run: Run, reason: str, now: datetime) -> Change:
    """The accepted model can never be registered: FAILED. Raises Fenced if the run does not wait for that."""
    if run.state is not RunState.RUNNING or not run.accepted:
        raise Fenced(f"{run.name} is {run.state} and waits for no model version.")
    failed = replace(run, state=RunState.FAILED, reason=reason, ended=now)
    return failed, (facts.failed(failed),)


def cancel(run: Run, now: datetime) -> Change:
    """Ask a run to stop. From here on cancellation wins. Raises FailedPrecondition for one that has its result."""
    if run.state in (RunState.CANCELLING, RunState.CANCELLED):
        return run, ()
    if run.state in FINAL or run.accepted:
        raise FailedPrecondition(f"{run.name} cannot be cancelled: it has ended ({run.state}).")
    if run.state is RunState.QUEUED:
        return _cancelled(run, now)
    return replace(run, state=RunState.CANCELLING, reason="is being cancelled"), ()


def cancelled(run: Run, now: datetime, log: str = "") -> Change:
    """Nothing of a cancelling run is left. Raises Fenced unless it is CANCELLING."""
    fence_cancelling(run)
    return _cancelled(_end_attempt(run, "cancelled", now, "cancelled", None, log), now)


def _enter(run: Run, attempt: int, now: datetime) -> Change:
    attempts = (*run.attempts, Attempt(attempt, "running", now))
    entered = replace(run, attempt=attempt, attempts=attempts, reason="")
    return entered, (facts.started(entered),)


def _succeed(run: Run, now: datetime) -> Change:
    done = replace(run, state=RunState.SUCCEEDED, ended=now)
    return done, (facts.succeeded(done),)


def _cancelled(run: Run, now: datetime) -> Change:
    done = replace(run, state=RunState.CANCELLED, reason="cancelled", ended=now)
    return done, (facts.cancelled(done),)


def _end_attempt(
    run: Run, state: str, now: datetime, reason: str = "", exit_code: int | None = None, log: str = ""
) -> Run:
    last = replace(run.attempts[-1], state=state, ended=now, reason=reason, exit_code=exit_code, log=log)
    return replace(run, attempts=(*run.attempts[:-1], last))
