"""Drives every unfinished run from what is written to what should be: the one place where jobs are started and ended.

It remembers nothing that matters: any instance goes on where another died, and two at once do no harm, since every
step is a compare-and-set on the run and its attempt. Each run has a task of its own, so that a slow one (storing, a
manifest still being written) holds up no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from penstock.errors import InvalidArgument, NotFound, Unavailable
from penstock.rpc.watch import Signals
from penstock.runtime.tasks import KeyedTasks, set_within
from penstock.store import Cause, Stored, current_cause, now
from services.training import model
from services.training.attempts import Attempts
from services.training.datasets import Datasets
from services.training.model import Fenced, Run, RunState
from services.training.repository import Repository

SWEEP_SECONDS = 1.0
IDLE_SECONDS = 5.0  # between two sweeps when nothing is unfinished: commands wake this process themselves
WATCH_SECONDS = 0.1  # between two looks at a running job
LOOKS_SECONDS = 2.0  # after so long a watched run is read anew: another instance may have cancelled it
log = structlog.get_logger(__name__)


class Reconciler:
    """`run()` it as long as the service lives. `cores` are what all running attempts may use together."""

    def __init__(
        self, repository: Repository, attempts: Attempts, datasets: Datasets, signals: Signals, cores: float
    ) -> None:
        self._repository = repository
        self._attempts = attempts
        self._datasets = datasets
        self._signals = signals
        self._cores = cores
        self._woken = asyncio.Event()
        self._tasks = KeyedTasks()

    def wake(self, name: str) -> None:
        """Something about this run has changed: look at it now."""
        self._signals.notify(name)
        self._woken.set()

    async def run(self) -> None:
        """Reconcile forever."""
        try:
            while True:
                self._woken.clear()
                await self.sweep()
                await set_within(self._woken, SWEEP_SECONDS if self._tasks else IDLE_SECONDS)
        finally:
            await self._tasks.close()

    async def sweep(self) -> None:
        """Look at all unfinished runs once, and give each that needs it a task."""
        runs = [stored.value for stored in await self._repository.unfinished()]
        free = self._cores - sum(run.resources.cpu for run in runs if _is_active(run))
        for run in runs:
            if run.state is not RunState.QUEUED:
                self._spawn(run, self._step)
            elif not run.manifest:
                self._spawn(run, self._pin)
            elif free >= 0:
                free -= run.resources.cpu
                if free >= 0:
                    self._spawn(run, self._begin)

    def _spawn(self, run: Run, step: Callable[[Run], Coroutine[Any, Any, None]]) -> None:
        self._tasks.start(run.name, partial(self._guarded, run, step))

    async def _guarded(self, run: Run, step: Callable[[Run], Coroutine[Any, Any, None]]) -> None:
        first = f"{run.name}@1"  # the event that the run was queued
        current_cause.set(Cause(run.correlation_id or first, first, run.traceparent))
        try:
            await step(run)
        except Fenced as error:
            log.info("somebody else was faster", run=run.name, reason=error.message)
        except Unavailable as error:
            log.warning("a step of a run must wait", run=run.name, reason=error.message)
            await asyncio.sleep(SWEEP_SECONDS)
        except Exception:
            log.exception("a step of a run failed", run=run.name)
            await asyncio.sleep(SWEEP_SECONDS)
        finally:
            self._woken.set()

    async def _pin(self, run: Run) -> None:
        try:
            manifest = await self._datasets.manifest(run.dataset_version, run.author)
        except (NotFound, InvalidArgument) as error:
            reason = error.message
            await self._change(run, lambda current: model.refuse(current, reason, now()))
            return
        await self._change(run, lambda current: model.pin(current, manifest.digest))

    async def _begin(self, run: Run) -> None:
        stored = await self._change(run, lambda current: model.begin(current, now()))
        await self._step(stored.value)

    async def _step(self, run: Run) -> None:
        """One unfinished run that was begun: go on until somebody else has to do something."""
        if run.accepted:
            await self._register(run)
        elif run.state is RunState.CANCELLING:
            await self._cancel(run)
        else:
            await self._watch(run)

    async def _watch(self, run: Run) -> None:
        deadline = time.monotonic() + LOOKS_SECONDS
        with self._signals.listening(run.name) as changed:
            while (ending := await self._attempts.look(run)) is None:
                await set_within(changed, WATCH_SECONDS)
                if changed.is_set() or time.monotonic() > deadline:
                    return
        stored = await self._change(run, ending)
        await self._attempts.forget(stored.value)
        if stored.value.accepted and stored.value.state is RunState.RUNNING:
            await self._register(stored.value)

    async def _cancel(self, run: Run) -> None:
        while (log_digest := await self._attempts.cancel(run)) is None:  # noqa: ASYNC110 - another process ends it
            await asyncio.sleep(WATCH_SECONDS)
        ended = await self._change(run, lambda current: model.cancelled(current, now(), log_digest))
        await self._attempts.forget(ended.value)

    async def _register(self, run: Run) -> None:
        try:
            version = await self._attempts.register(run)
        except (InvalidArgument, NotFound) as error:
            reason = f"The model could not be registered. {error.message}"
            await self._change(run, lambda current: model.forsake(current, reason, now()))
            return
        await self._change(run, lambda current: model.registered(current, version.name, now()))

    async def _change(self, run: Run, transition: Callable[[Run], Run | model.Change]) -> Stored[Run]:
        stored = await self._repository.change_run(run.name, transition)
        self._signals.notify(run.name)
        return stored


def _is_active(run: Run) -> bool:
    """Whether a run has, or may have, a process."""
    return run.state is not RunState.QUEUED and not run.accepted
