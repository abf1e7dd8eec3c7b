"""Drives runs through their steps: one task a run, which a restart begins again where the document says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from penstock.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PenstockError,
    PermissionDenied,
    Unavailable,
)
from penstock.events import NewEvent
from penstock.rpc.channels import on_behalf_of
from penstock.runtime.tasks import KeyedTasks, set_within
from penstock.store import Stored, now
from services.pipeline import expressions
from services.pipeline.actions import Action, StepFailed
from services.pipeline.causes import caused_by, event_variables
from services.pipeline.model import PipelineRun, RunState, StepRun, StepState
from services.pipeline.repository import Repository

SWEEP = 2.0  # seconds between looks for runs that nobody drives
PAUSE = 0.5  # seconds before a service that does not answer is asked again
# What asking again cannot change; everything else (a conflict, a service that is down) is tried again.
_HOPELESS = (InvalidArgument, NotFound, StepFailed, PermissionDenied, FailedPrecondition)
# To ask by making it would begin what cannot be ended again.
_UNKNOWN = "cancelled while it was being asked for: if the request had been heard, what it made is left to end"
log = logging.getLogger(__name__)


@dataclass
class Driver:
    """Keeps one task for each run under way. `wake` asks for a look now."""

    repository: Repository
    actions: Mapping[str, Action]
    wake: asyncio.Event
    _tasks: KeyedTasks = field(default_factory=KeyedTasks)
    _cancelling: set[str] = field(default_factory=set)  # runs whose task knows that it has to cancel

    async def run(self) -> None:
        """Drive all runs; for ever. Cancelling it leaves the runs to the next process."""
        try:
            while True:
                self.wake.clear()
                for stored in await self.repository.active_runs():
                    self._drive(stored)
                await set_within(self.wake, SWEEP)
        finally:
            await self._tasks.close()

    def _drive(self, stored: Stored[PipelineRun]) -> None:
        cancelling = stored.value.state is RunState.CANCELLING
        if stored.id in self._tasks:
            if cancelling and stored.id not in self._cancelling:
                self._tasks.cancel(stored.id)  # it may follow what has to be cancelled; the next look starts another
            return
        if cancelling:
            self._cancelling.add(stored.id)
        self._tasks.start(stored.id, partial(self._to_the_end, stored.id))

    async def _to_the_end(self, name: str) -> None:
        try:
            while True:
                stored = await self.repository.runs.get(name)
                if stored.value.state.final:
                    return
                run = stored.value
                try:
                    with caused_by(run.causes[-1], f"{run.name}@1"), on_behalf_of(run.project, run.author):
                        await self._advance(stored)
                except (Unavailable, Conflict) as error:
                    log.info("%s waits: %s", name, error)
                    await asyncio.sleep(PAUSE)
        except asyncio.CancelledError:
            self.wake.set()
            raise
        except Exception:
            log.exception("driving %s failed; it is tried again", name)
        finally:
            self._cancelling.discard(name)

    async def _advance(self, stored: Stored[PipelineRun]) -> None:
        run = stored.value
        index = run.current()
        if run.state is RunState.CANCELLING:
            await self._cancel(stored, index)
        elif index is None:
            event = NewEvent("pipeline.run.succeeded", {"run": run.name, "pipeline": run.pipeline})
            done = replace(run, state=RunState.SUCCEEDED, end_time=now())
            await self.repository.runs.save(stored, done, [event])
        elif run.step_runs[index].state is StepState.WAITING:
            await self._enter(stored, index)
        elif not run.step_runs[index].resource:
            await self._make(stored, index)
        else:
            await self._follow(stored, index)

    async def _enter(self, stored: Stored[PipelineRun], index: int) -> None:
        """Skip the step, or note that its resource is being made: a cancellation must know that it may be there."""
        step, state = stored.value.steps[index], stored.value.step_runs[index]
        try:
            field = f"steps.{step.id}.if"
            wanted = await asyncio.to_thread(expressions.holds, step.condition, _variables(stored.value), field)
        except InvalidArgument as error:
            await self._fail(stored, index, replace(state, reason=error.message))
            return
        if not wanted:
            reason = f"{step.condition} does not hold"
            await self._ended(stored, index, replace(state, state=StepState.SKIPPED, reason=reason, end_time=now()))
            return
        started = replace(state, state=StepState.RUNNING, start_time=now())
        await self.repository.runs.save(stored, stored.value.with_step(index, started))

    async def _make(self, stored: Stored[PipelineRun], index: int) -> None:
        state = stored.value.step_runs[index]
        try:
            resource = await self._resource(stored.value, index)
        except (Unavailable, Conflict):
            raise
        except PenstockError as error:
            await self._fail(stored, index, replace(state, reason=error.message))
            return
        await self.repository.runs.save(stored, stored.value.with_step(index, replace(state, resource=resource)))

    async def _resource(self, run: PipelineRun, index: int) -> str:
        """Make the step's resource. Its request id is fixed, so doing it again finds what is there."""
        step = run.steps[index]
        settings = await asyncio.to_thread(expressions.resolve, step.settings, _variables(run), f"steps.{step.id}")
        request_id = f"{run.name}/{step.id}/{run.step_runs[index].tries}"
        return await self.actions[step.action].start(run.project, settings, request_id)

    async def _follow(self, stored: Stored[PipelineRun], index: int) -> None:
        state = stored.value.step_runs[index]
        try:
            async with aclosing(self.actions[state.action].follow(state.resource)) as outcomes:
                async for outcome in outcomes:
                    if outcome.ended:
                        done = replace(state, state=StepState.SUCCEEDED, outputs=outcome.outputs, end_time=now())
                        await self._ended(stored, index, done)
                        return
            raise Unavailable("the stream ended before the work did")
        except _HOPELESS as error:
            await self._fail(stored, index, replace(state, reason=error.message))

    async def _ended(self, stored: Stored[PipelineRun], index: int, step: StepRun) -> None:
        await self.repository.runs.save(stored, stored.value.with_step(index, step), [_step_event(stored.value, step)])

    async def _fail(self, stored: Stored[PipelineRun], index: int, step: StepRun) -> None:
        run = stored.value
        failed = replace(step, state=StepState.FAILED, end_time=now())
        reason = f"step {step.id}: {step.reason}"
        value = replace(run.with_step(index, failed), state=RunState.FAILED, reason=reason, end_time=now())
        data = {"run": run.name, "pipeline": run.pipeline, "step": step.id, "reason": step.reason}
        events = [_step_event(run, failed), NewEvent("pipeline.run.failed", data)]
        await self.repository.runs.save(stored, value, events)

    async def _cancel(self, stored: Stored[PipelineRun], index: int | None) -> None:
        run = stored.value
        events = [NewEvent("pipeline.run.cancelled", {"run": run.name, "pipeline": run.pipeline})]
        if index is not None:
            step = run.step_runs[index]
            if step.state is StepState.RUNNING:
                step = await self._cancelled(run, index)
            step = replace(step, state=StepState.CANCELLED, end_time=now())
            run = run.with_step(index, step)
            if step.resource:
                events.insert(0, _step_event(run, step))
        await self.repository.runs.save(stored, replace(run, state=RunState.CANCELLED, end_time=now()), events)

    async def _cancelled(self, run: PipelineRun, index: int) -> StepRun:
        """Cancel what a step made; answers the step with it (without: nothing was made)."""
        step, action = run.step_runs[index], self.actions[run.steps[index].action]
        if not step.resource and not action.cancellable:
            return replace(step, reason=_UNKNOWN)
        resource = step.resource
        try:
            # Whether it was made before a crash only its owner knows: ask by making it.
            resource = resource or await self._resource(run, index)
            await action.cancel(resource)
        except (Unavailable, Conflict):
            raise
        except PenstockError as error:
            log.info("%s of %s was not cancelled: %s", step.id, run.name, error)  # it ended by itself
        return replace(step, resource=resource)


def _variables(run: PipelineRun) -> dict[str, Any]:
    """What the expressions of steps see."""
    return {
        "event": event_variables(run.causes[-1]),
        "causes": [event_variables(cause) for cause in run.causes],
        "steps": run.outputs(),
    }


def _step_event(run: PipelineRun, step: StepRun) -> NewEvent:
    return NewEvent(
        "pipeline.run.step_ended",
        {"run": run.name, "step": step.id, "state": str(step.state), "resource": step.resource},
    )
