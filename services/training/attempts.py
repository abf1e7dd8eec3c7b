"""What the reconciler does to one attempt of a run: start it, look at it, take in what it made, end it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from penstock import names
from penstock.errors import DataCorrupt, FailedPrecondition, NotFound
from penstock.jobs.executor import Executor, Phase
from penstock.jobs.result import Cause, JobResult, JobState
from penstock.jobs.spec import AttemptRef, Report
from penstock.objects import ObjectStore
from penstock.rpc.tokens import Tokens
from penstock.store import now
from services.training import model
from services.training.datasets import Datasets
from services.training.jobs import GRACE_SECONDS, name_of, ref_of, spec_of
from services.training.model import Change, Run
from services.training.outcomes import model_version, outcome_of
from services.training.registry import register
from services.training.repository import Repository
from services.training.tokens import mint_runner_token
from services.training.versions import ModelVersion

START_SECONDS = 5.0  # how long a started attempt may take to show itself before it is started again
MAX_LOST_LOG = 64 << 20
_SPOOL = 1 << 20
_CLEANUPS = 20
log = structlog.get_logger(__name__)
Ending = Callable[[Run], Change]


@dataclass(frozen=True)
class Attempts:
    """Attempts on one executor. `address` is where jobs report; known only once the service listens."""

    executor: Executor
    repository: Repository
    objects: ObjectStore
    datasets: Datasets
    tokens: Tokens
    address: Callable[[], str]
    local_code: bool
    _started: dict[AttemptRef, float] = field(default_factory=dict)
    _adopted: set[AttemptRef] = field(default_factory=set)

    async def look(self, run: Run) -> Ending | None:
        """Start the current attempt if nobody has; the transition that its end asks for, or None while it runs."""
        ref = ref_of(run)
        try:
            seen = await self.executor.observe(ref)
            if seen.result is not None:
                return await self._result(run, seen.result)
        except (DataCorrupt, NotFound) as error:
            return await self._lost(run, f"What the attempt left behind cannot be read. {error.message}")
        if seen.phase is Phase.LOST:
            return await self._lost(run, "The process of the attempt went away without a result.")
        if seen.phase is Phase.NEVER_STARTED:
            await self._start(run, ref)
        else:
            await self._adopt(run, ref)
        return None

    async def cancel(self, run: Run) -> str | None:
        """End the current attempt: the digest of its log ("": none) once nothing of it runs, None until then.

        Raises Fenced if somebody else has ended it.
        """
        ref = ref_of(run)
        # Read anew: cancelling what others have ended and removed would make its folder again.
        model.fence_cancelling((await self.repository.runs.get(run.name)).value)
        await self.executor.cancel(ref, GRACE_SECONDS)
        seen = await self.executor.observe(ref)
        if seen.phase is Phase.HELD:
            return None
        if seen.result is not None:
            return seen.result.log.digest if seen.result.log else ""
        if seen.phase is Phase.NEVER_STARTED:
            return ""  # one that starts late finds the wish to cancel, and leaves
        await self.executor.kill_rest(ref)
        return await self._keep_log(ref)

    async def forget(self, run: Run) -> None:
        """Remove the files of a run that has ended. A lost attempt keeps its own until then: its start record is what
        tells a late reconciler that it was started before."""
        if run.state not in model.FINAL and not run.accepted:
            return
        for number in range(1, run.attempt + 1):
            ref = ref_of(run, number)
            await self._cleanup(ref, last=number == run.attempt)
            self._started.pop(ref, None)
            self._adopted.discard(ref)

    async def wanted(self, jobs: Sequence[str]) -> set[str]:
        """Those of some jobs whose run still waits for a result."""
        found = await self.repository.runs.get_many([name_of(job) for job in jobs])
        waiting = {s.id for s in found.values() if s.value.state not in model.FINAL and not s.value.accepted}
        return {job for job in jobs if name_of(job) in waiting}

    async def _cleanup(self, ref: AttemptRef, *, last: bool) -> None:
        for _ in range(_CLEANUPS):
            try:
                await self.executor.cleanup(ref, last=last)
                return
            except FailedPrecondition:  # the result is there, its writer has not quite gone
                await asyncio.sleep(0.1)
        log.warning("the files of an attempt stay", job=ref.job, attempt=ref.attempt)

    async def register(self, run: Run) -> ModelVersion:
        """The model version of a run whose result was accepted. Raises InvalidArgument, NotFound: it can never be."""
        name = names.build("model", run.project, run.model)
        draft = await asyncio.to_thread(model_version, self.objects, run, name, "", run.author)
        return await register(self.repository, draft)

    async def _start(self, run: Run, ref: AttemptRef) -> None:
        if time.monotonic() - self._started.get(ref, float("-inf")) < START_SECONDS:
            return
        manifest = await self.datasets.manifest(run.dataset_version, run.author)
        if manifest.digest != run.manifest:
            raise FailedPrecondition(f"The manifest of {run.dataset_version} is not the one that {run.name} pinned.")
        # Read anew, and last: whoever holds an old copy of the run must not start what others have given up.
        model.fence((await self.repository.runs.get(run.name)).value, run.attempt)
        report = self._report(run)
        await self.executor.start(spec_of(run, manifest, report, local_code=self.local_code))
        self._started[ref] = time.monotonic()
        self._adopted.add(ref)

    async def _adopt(self, run: Run, ref: AttemptRef) -> None:
        """A job that another process of this service started: tell it where to report now."""
        if ref not in self._adopted:
            self._adopted.add(ref)
            await self.executor.report_to(ref, self._report(run))

    def _report(self, run: Run) -> Report:
        return Report(self.address(), mint_runner_token(self.tokens, run))

    async def _result(self, run: Run, result: JobResult) -> Ending:
        attempt = run.attempt
        if result.cause is Cause.PLATFORM or result.state is JobState.CANCELLED:
            log = result.log.digest if result.log else ""
            reason = result.reason or "The attempt was ended from outside."
            return lambda current: model.lose(current, attempt, reason, now(), log)
        outcome, batches = await asyncio.to_thread(outcome_of, self.objects, run, result)
        if batches:
            await self.repository.append(batches)
        return lambda current: model.complete(current, attempt, outcome, now())

    async def _lost(self, run: Run, reason: str) -> Ending:
        await self.executor.kill_rest(ref_of(run))
        attempt, log = run.attempt, await self._keep_log(ref_of(run))
        return lambda current: model.lose(current, attempt, reason, now(), log)

    async def _keep_log(self, ref: AttemptRef) -> str:
        """Store the log of an attempt that could not do it itself; "" if there is none."""
        with tempfile.SpooledTemporaryFile(_SPOOL) as file:
            offset = 0
            while offset < MAX_LOST_LOG and (chunk := await self.executor.read_log(ref, offset)).data:
                file.write(chunk.data)
                offset = chunk.offset
            return (await asyncio.to_thread(self.objects.put_stream, file)).digest if offset else ""  # type: ignore[arg-type]
