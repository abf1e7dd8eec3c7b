"""Drives every unfinished evaluation to its end; remembers nothing that matters, so any instance goes on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial

import structlog

from penstock import names
from penstock.errors import DataCorrupt, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable
from penstock.jobs.executor import Executor, Phase
from penstock.jobs.result import Cause, JobResult, JobState
from penstock.jobs.spec import AttemptRef
from penstock.objects import ObjectStore
from penstock.runtime.tasks import KeyedTasks, set_within
from penstock.store import Cause as Chain
from penstock.store import current_cause, now
from services.evaluation.commands import Evaluations
from services.evaluation.jobs import GRACE, read_result, ref_of, spec_of
from services.evaluation.model import Evaluation, State, Verdict
from services.evaluation.repository import Repository
from services.evaluation.rules import judge

SWEEP = 1.0  # seconds between looks at all
LOOK = 0.1  # seconds between looks at a running job
START_AGAIN = 5.0  # seconds until an attempt that does not show itself is started again
_CLEANUPS = 20
log = structlog.get_logger(__name__)


@dataclass
class Reconciler:
    """`run()` it as long as the service lives."""

    repository: Repository
    evaluations: Evaluations
    executor: Executor
    objects: ObjectStore
    _tasks: KeyedTasks = field(default_factory=KeyedTasks)
    _started: dict[AttemptRef, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Reconcile for ever."""
        woken = self.evaluations.woken
        try:
            while True:
                woken.clear()
                for stored in await self.repository.unfinished():
                    self._tasks.start(stored.id, partial(self._guarded, stored.value))
                await set_within(woken, SWEEP)
        finally:
            await self._tasks.close()

    async def _guarded(self, evaluation: Evaluation) -> None:
        current_cause.set(Chain(evaluation.correlation_id, evaluation.causation_id, evaluation.traceparent))
        try:
            while not evaluation.state.final:
                evaluation = await self._step(evaluation)
        except Unavailable as error:
            log.info("an evaluation waits", evaluation=evaluation.name, reason=error.message)
            await asyncio.sleep(SWEEP)
        except Exception:
            log.exception("a step of an evaluation failed", evaluation=evaluation.name)
            await asyncio.sleep(SWEEP)
        self.evaluations.woken.set()

    async def _step(self, evaluation: Evaluation) -> Evaluation:
        if evaluation.state is State.QUEUED:
            return await self._begin(evaluation)
        if evaluation.state is State.CANCELLING:
            return await self._cancel(evaluation)
        if evaluation.result is None:
            return await self._look(evaluation)
        return await self._judge(evaluation)

    async def _begin(self, evaluation: Evaluation) -> Evaluation:
        """Find the model, the data and what to compare with, and pin them."""
        peers, author = self.evaluations.peers, evaluation.author
        try:
            artifact = await peers.artifact(evaluation.model_version, author)
            manifest = await peers.manifest(evaluation.dataset_version, author)
            version = evaluation.baseline
            if version and names.parse(version).kind == "endpoint":
                version = await peers.serves(version, author)
        except (NotFound, InvalidArgument, FailedPrecondition, PermissionDenied) as error:
            return await self._fail(evaluation, error.message)
        compared = await self.evaluations.of_baseline(evaluation, version) if version else ""
        stored = await self.repository.evaluations.change(
            evaluation.name, lambda e: e.begin(artifact, manifest.digest, version, compared)
        )
        return stored.value

    async def _look(self, evaluation: Evaluation) -> Evaluation:
        """Start the attempt if nobody has, or take in what came of it."""
        ref = ref_of(evaluation)
        seen = await self.executor.observe(ref)
        if seen.phase is Phase.NEVER_STARTED:
            await self._start(evaluation, ref)
        elif seen.result is not None:
            return await self._accept(evaluation, seen.result)
        elif seen.phase is Phase.LOST:
            await self.executor.kill_rest(ref)
            return await self._lose(evaluation, "The process of the attempt went away without a result.")
        await asyncio.sleep(LOOK)
        return (await self.repository.evaluations.get(evaluation.name)).value

    async def _start(self, evaluation: Evaluation, ref: AttemptRef) -> None:
        if time.monotonic() - self._started.get(ref, float("-inf")) < START_AGAIN:
            return
        manifest = await self.evaluations.peers.manifest(evaluation.dataset_version, evaluation.author)
        # Read anew: whoever holds an old copy must not start what has ended meanwhile, of which nothing is left.
        current = (await self.repository.evaluations.get(evaluation.name)).value
        if current.state is not State.RUNNING or current.attempt != evaluation.attempt or current.result is not None:
            return
        await self.executor.start(spec_of(evaluation, manifest))
        self._started[ref] = time.monotonic()

    async def _accept(self, evaluation: Evaluation, result: JobResult) -> Evaluation:
        if result.cause is Cause.PLATFORM or result.state is JobState.CANCELLED:
            return await self._lose(evaluation, result.reason or "The attempt was ended from outside.")
        if result.state is not JobState.SUCCEEDED:
            return await self._fail(evaluation, result.reason or f"The job ended with exit code {result.exit_code}.")
        try:
            computed = await asyncio.to_thread(read_result, self.objects, result)
        except DataCorrupt as error:
            return await self._fail(evaluation, error.message)
        attempt = evaluation.attempt
        stored = await self.repository.evaluations.change(evaluation.name, lambda e: e.accept(attempt, computed))
        await self._clean_up(evaluation)
        return stored.value

    async def _judge(self, evaluation: Evaluation) -> Evaluation:
        """Give the verdict, once the baseline's metrics are known."""
        assert evaluation.result is not None
        verdict: Verdict | None = None
        if evaluation.rule:
            baseline_metrics = None
            if evaluation.compared:
                other = (await self.repository.evaluations.get(evaluation.compared)).value
                if not other.state.final:
                    await asyncio.sleep(LOOK)
                    return (await self.repository.evaluations.get(evaluation.name)).value
                if other.result is None:
                    return await self._fail(evaluation, f"The baseline could not be evaluated: {other.reason}")
                baseline_metrics = other.result.metrics
            verdict = await asyncio.to_thread(
                judge, evaluation.rule, evaluation.result.metrics, evaluation.baseline_version, baseline_metrics
            )
        stored = await self.repository.evaluations.change(evaluation.name, lambda e: e.finish(verdict, now()))
        return stored.value

    async def _cancel(self, evaluation: Evaluation) -> Evaluation:
        if evaluation.attempt:
            ref = ref_of(evaluation)
            await self.executor.cancel(ref, GRACE)
            if (await self.executor.observe(ref)).phase is Phase.HELD:
                await asyncio.sleep(LOOK)
                return evaluation  # asked again until nothing of it runs
            await self.executor.kill_rest(ref)
            await self._clean_up(evaluation)
        stored = await self.repository.evaluations.change(evaluation.name, lambda e: e.cancelled(now()))
        return stored.value

    async def _lose(self, evaluation: Evaluation, reason: str) -> Evaluation:
        attempt = evaluation.attempt
        stored = await self.repository.evaluations.change(evaluation.name, lambda e: e.lose(attempt, reason, now()))
        if stored.value.state.final:
            await self._clean_up(evaluation)
        return stored.value

    async def _fail(self, evaluation: Evaluation, reason: str) -> Evaluation:
        stored = await self.repository.evaluations.change(evaluation.name, lambda e: e.fail(reason, now()))
        if evaluation.attempt:
            await self._clean_up(evaluation)
        return stored.value

    async def _clean_up(self, evaluation: Evaluation) -> None:
        """Remove the files of the attempts; the result is in the object store."""
        for number in range(1, evaluation.attempt + 1):
            ref = ref_of(evaluation, number)
            self._started.pop(ref, None)
            for _ in range(_CLEANUPS):
                try:
                    await self.executor.cleanup(ref, last=number == evaluation.attempt)
                    break
                except FailedPrecondition:  # the result is there, its writer has not quite gone
                    await asyncio.sleep(0.1)
