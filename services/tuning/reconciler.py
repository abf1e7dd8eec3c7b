"""Drives every unfinished study: creates trials and their runs, counts what was told, ends it.

It remembers nothing that matters. Each step is an insert under a fixed id or a compare-and-set, so that any instance
goes on where another died, and two at once do no harm.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import structlog

from penstock.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from penstock.rpc.watch import Signals
from penstock.runtime.tasks import KeyedTasks, set_within
from penstock.store import Cause, current_cause, now
from services.tuning import model
from services.tuning.model import FINAL, Study, StudyState, Told, Trial, TrialState
from services.tuning.repository import Repository, trial_name
from services.tuning.sampling import Samplers
from services.tuning.trainings import Trainings

SWEEP_SECONDS = 5.0  # every study has a task that looks by itself; commands wake this process
ASK_SECONDS = 1.0  # between two questions about the same run, when no event says anything
# What says that a trial's run can never be made, or a version never registered: the user's doing, or a limit.
REFUSALS = (AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted)
log = structlog.get_logger(__name__)


class Reconciler:
    """`run()` it as long as the service lives."""

    def __init__(self, repository: Repository, trainings: Trainings, samplers: Samplers, signals: Signals) -> None:
        self._repository = repository
        self._trainings = trainings
        self._samplers = samplers
        self._signals = signals
        self._woken = asyncio.Event()
        self._tasks = KeyedTasks()
        self._asked: dict[str, float] = {}

    def wake(self, name: str) -> None:
        """Something about this study has changed: look at it now."""
        self._signals.notify(name)
        self._woken.set()

    async def run(self) -> None:
        """Reconcile forever."""
        try:
            while True:
                self._woken.clear()
                for stored in await self._repository.unfinished():
                    self._tasks.start(stored.id, partial(self._drive, stored.value))
                await set_within(self._woken, SWEEP_SECONDS)
        finally:
            await self._tasks.close()

    async def _drive(self, study: Study) -> None:
        """Step by step until the study has ended; whatever fails is tried again."""
        first = f"{study.name}@1"  # the event that the study was started
        current_cause.set(Cause(study.correlation_id or first, first, study.traceparent))
        with self._signals.listening(study.name) as changed:
            while True:
                changed.clear()
                try:
                    if await self._step(study.name):
                        break
                except Unavailable as error:
                    log.warning("a step of a study must wait", study=study.name, reason=error.message)
                except Exception:  # one study must not stop the others; it is tried again
                    log.exception("a step of a study failed", study=study.name)
                await set_within(changed, ASK_SECONDS)
        self._samplers.forget(study.name)

    async def _step(self, name: str) -> bool:
        """Do all that can be done now; True once the study has ended."""
        study = (await self._repository.studies.get(name)).value
        if study.state in FINAL:
            return True
        trials = [t for t in await self._repository.after(name, study.counted) if not study.is_counted(t.number)]
        running = [trial for trial in [await self._settle(study, t) for t in trials] if trial is not None]
        study = (await self._repository.studies.get(name)).value
        last = max((t.number for t in trials), default=0)
        last = max([last, study.counted, *study.counted_beyond])
        while study.state is StudyState.RUNNING and len(running) < study.parallelism and last < study.max_trials:
            last += 1
            asked = await self._ask(study, last)
            if asked is None:
                return False
            if await self._settle(study, asked) is not None:
                running.append(asked)
            else:  # refused at once: perhaps once too often
                study = (await self._repository.studies.get(name)).value
        if running or (study.state is StudyState.RUNNING and last < study.max_trials):
            return False
        study = (await self._repository.studies.get(name)).value
        if study.told < last:
            return False
        await self._finish(study)
        return True

    async def _settle(self, study: Study, trial: Trial) -> Trial | None:
        """Give a trial its run, see what came of it, count it; the trial if it still runs."""
        if trial.state is TrialState.RUNNING and not trial.run:
            trial = await self._give_run(study, trial)
        if trial.state is TrialState.RUNNING and study.state is StudyState.STOPPING:
            await self._trainings.cancel(study, trial)
        if trial.state is TrialState.RUNNING and self._may_ask(trial):
            told = await self._trainings.outcome(study, trial)
            if told is not None:
                trial = await self._tell(trial, told)
        if trial.state is TrialState.RUNNING:
            return trial
        self._asked.pop(trial.name, None)
        await self._repository.change_study(study.name, lambda value: model.count(value, trial))
        self._signals.notify(study.name)
        return None

    async def _give_run(self, study: Study, trial: Trial) -> Trial:
        try:
            run = await self._trainings.create(study, trial)
        except REFUSALS as error:
            return await self._tell(trial, Told(reason=error.message))
        return (await self._repository.trials.change(trial.name, lambda value: model.give_run(value, run))).value

    async def _tell(self, trial: Trial, told: Told) -> Trial:
        return (await self._repository.trials.change(trial.name, lambda value: model.tell(value, told, now()))).value

    def _may_ask(self, trial: Trial) -> bool:
        asked, moment = self._asked.get(trial.name), time.monotonic()
        if asked is not None and moment - asked < ASK_SECONDS:
            return False
        self._asked[trial.name] = moment
        return True

    async def _ask(self, study: Study, number: int) -> Trial | None:
        """Propose a trial and insert it under its number; None if somebody else has just done that."""
        known = await self._repository.numbered(study.name, self._samplers.unknown(study, number))
        point = await asyncio.to_thread(self._samplers.propose, study, number, known)
        parameters = {searched.name: searched.value(point[searched.name]) for searched in study.space}
        trial = Trial(trial_name(study.name, number), study.name, number, point, parameters, now())
        if await self._repository.insert(trial):
            return trial
        self._samplers.forget(study.name)
        return None

    async def _finish(self, study: Study) -> None:
        if not study.best:
            await self._change(study, lambda value: model.end_without_best(value, now()))
            return
        try:
            version = await self._trainings.register(study)
        except REFUSALS as error:
            reason = f"The model of the best trial could not be registered. {error.message}"
            await self._change(study, lambda value: model.end_without_best(value, now(), reason))
            return
        best = trial_name(study.name, study.best)
        await self._change(study, lambda value: model.succeed(value, version, best, now()))

    async def _change(self, study: Study, transition: model.Transition) -> None:
        await self._repository.change_study(study.name, transition)
        self._signals.notify(study.name)
