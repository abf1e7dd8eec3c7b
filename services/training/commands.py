"""What can be done to runs and models. Each command is durable, in one document, when it returns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from penstock.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PenstockError,
    Unavailable,
)
from penstock.jobs.spec import Git
from penstock.objects import ObjectStore
from penstock.rpc.request_ids import check_repeat
from penstock.runner.git import resolve
from penstock.store import Cause, Stored, current_cause, now
from services.training.archives import has_archive, keep_archive
from services.training.datasets import Datasets
from services.training.model import Run, RunState, cancel, queue
from services.training.outcomes import model_version
from services.training.registry import register
from services.training.repository import MAX_BATCH, Batch, Point, Repository, news
from services.training.validation import Limits, check_run
from services.training.versions import ModelVersion

MAX_METRIC_NAME = 256
GIT_SECONDS = 20.0


@dataclass(frozen=True)
class Commands:
    """The use cases. `wake` tells the reconciler that there is something to do for a run."""

    repository: Repository
    objects: ObjectStore
    datasets: Datasets
    limits: Limits
    wake: Callable[[str], None]

    async def create_run(self, run: Run, request_id: str) -> Stored[Run]:
        """Queue a run. The same request again gives the run that it made.

        Raises InvalidArgument, NotFound (dataset version, code archive, base), all naming the field; AlreadyExists if
        that was another run.
        """
        if request_id:
            with suppress(NotFound):  # the request comes for the first time
                made = await self.repository.runs.get(run.name)
                check_repeat(same=made.value.asked == run.asked)
                return made
        cause = current_cause.get() or Cause()
        checked = await self.check_run(run)
        first, facts = queue(replace(checked, correlation_id=cause.correlation_id, traceparent=cause.traceparent))
        try:
            stored = await self.repository.runs.create(run.name, first, news(facts), request_id=request_id or None)
        except AlreadyExists:
            stored = await self.repository.runs.get(run.name)  # the id is a hash of the request: it is this one's
        self.wake(run.name)
        return stored

    async def check_run(self, run: Run) -> Run:
        """The run as it would be queued: what it refers to exists, its Git ref is a commit. Raises as `create_run`."""
        check_run(run, self.limits)
        await self.datasets.check_version(run.dataset_version, run.author)
        archive = run.code.archive
        if archive and not await asyncio.to_thread(has_archive, self.objects, run.project, archive):
            raise NotFound(f"There is no code archive {run.code.archive}: send it first.", field="run.code.archive")
        if run.code.git:
            run = replace(run, code=replace(run.code, git=await self._pinned(run.code.git)))
        return replace(run, base_artifact=await self._base(run.base)) if run.base else run

    async def cancel_run(self, name: str) -> Stored[Run]:
        """Ask a run to stop; once this returns, it ends CANCELLED. Raises NotFound, FailedPrecondition (has ended)."""
        stored = await self.repository.change_run(name, lambda run: cancel(run, now()))
        self.wake(name)
        return stored

    async def create_model_version(self, model: str, run_name: str, study: str, author: str) -> ModelVersion:
        """Register what a run made; again gives the same version. Raises FailedPrecondition, NotFound."""
        run = (await self.repository.runs.get(run_name)).value
        if run.state is not RunState.SUCCEEDED:
            raise FailedPrecondition(f"{run_name} is {run.state}: only a run that succeeded has a model.")
        if not run.artifact:
            raise FailedPrecondition(f"{run_name} wrote no model, so there is nothing to register.")
        draft = await asyncio.to_thread(model_version, self.objects, run, model, study, author)
        return await register(self.repository, draft)

    async def append_metrics(self, name: str, attempt: int, batch: int, points: Sequence[Point]) -> None:
        """Keep a batch of metrics of an attempt, durable on return; the same batch again changes nothing.

        It reads nothing: the reporter's token is good for this attempt only, and readers look at the accepted one.
        """
        if attempt < 1:
            raise InvalidArgument("attempt must be 1 or more.", field="attempt")
        if not 1 <= batch < 10**12:
            raise InvalidArgument("batch_id must be 1 or more.", field="batch_id")
        if not 1 <= len(points) <= MAX_BATCH:
            raise InvalidArgument(f"A batch has 1 to {MAX_BATCH} metrics, not {len(points)}.", field="metrics")
        for index, (metric, *_) in enumerate(points):
            if not 1 <= len(metric) <= MAX_METRIC_NAME or not metric.isprintable():
                raise InvalidArgument(
                    f"A metric's name has 1 to {MAX_METRIC_NAME} printable characters.", field=f"metrics[{index}].name"
                )
        await self.repository.append([Batch(name, attempt, batch, tuple(points))])

    async def create_archive(self, project: str, data: bytes) -> tuple[str, int]:
        """Keep a directory of code for a project: its digest and size. Raises InvalidArgument, ResourceExhausted."""
        return await asyncio.to_thread(keep_archive, self.objects, project, data)

    async def _pinned(self, git: Git) -> Git:
        """The repository at the commit that its ref means now: attempts and repetitions read the same code."""
        deadline = time.monotonic() + GIT_SECONDS

        def go_on() -> None:
            if time.monotonic() > deadline:
                raise Unavailable(f"{git.url} did not answer within {GIT_SECONDS:g} s: try again.")

        try:
            commit = await asyncio.to_thread(resolve, git.url, git.ref, local=self.limits.local_code, go_on=go_on)
        except PenstockError as error:
            violations = [FieldViolation(f"run.{v.field}", v.description) for v in error.violations]
            raise type(error)(error.message, violations=violations) from error
        return replace(git, commit=commit)

    async def _base(self, base: str) -> str:
        try:
            return (await self.repository.versions.get(base)).value.artifact
        except NotFound as error:
            raise NotFound(f"{base} does not exist: choose a model version that does.", field="run.base") from error
