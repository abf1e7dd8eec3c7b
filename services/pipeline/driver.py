"""Drives runs through their steps: one task a run, which a restart begins again where the document says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock.errors import Conflict, InvalidArgument, NotFound, PenstockError, Unavailable
from penstock.events import NewEvent
from penstock.rpc.channels import on_behalf_of
from penstock.rpc.structs import from_struct, to_struct
from penstock.store import Stored, now
from services.pipeline import expressions
from services.pipeline.actions import Action, StepFailed
from services.pipeline.model import PipelineRun, RunState, StepRun, StepState
from services.pipeline.repository import Repository
from services.pipeline.trigger import chain_of, event_variables

SWEEP = 2.0  # seconds between looks for runs that nobody drives
PAUSE = 0.5  # seconds before a service that does not answer is asked again
# What asking again cannot change; everything else (a conflict, a service that is down) is tried again.
_HOPELESS = (InvalidArgument, NotFound, StepFailed)
log = logging.getLogger(__name__)


@dataclass
class Driver:
    """Keeps one task for each run under way. `wake` asks for a look now."""

    repository: Repository
    actions: Mapping[str, Action]
    wake: asyncio.Event
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Drive all runs; for ever. Cancelling it leaves the runs to the next process."""
        try:
            while True:
                self.wake.clear()
                for stored in await self.repository.active_runs():
                    self._drive(stored)
                try:
                    await asyncio.wait_for(self.wake.wait(), SWEEP)
                except TimeoutError:
                    continue
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _drive(self, stored: Stored[PipelineRun]) -> None:
        task = self._tasks.get(stored.id)
        if task is not None and not task.done():
            if stored.value.state is RunState.CANCELLING and not task.get_name().startswith("cancel:"):
                task.cancel()  # what it follows has to be cancelled instead; the next look starts that
            return
        kind = "cancel" if stored.value.state is RunState.CANCELLING else "drive"
        self._tasks[stored.id] = asyncio.create_task(self._to_the_end(stored.id), name=f"{kind}:{stored.id}")

    async def _to_the_end(self, name: str) -> None:
        try:
            while True:
                stored = await self.repository.runs.get(name)
                if stored.value.state.final:
                    return
                chain_of(stored.value.causes[-1])
                try:
                    with on_behalf_of(stored.value.project, stored.value.author):
                        await self._advance(stored)
                except (Unavailable, Conflict) as error:
                    log.info("%s waits: %s", name, error)
                    await asyncio.sleep(PAUSE)
        except asyncio.CancelledError:
            self.wake.set()
            raise
        except Exception:
            log.exception("driving %s failed; it is tried again", name)

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
            await self._start(stored, index)
        else:
            await self._follow(stored, index)

    async def _start(self, stored: Stored[PipelineRun], index: int) -> None:
        """Make the step's resource. Its request id is fixed, so a crash before the save below repeats it harmlessly."""
        run = stored.value
        step, state = run.steps[index], run.step_runs[index]
        variables = {
            "event": event_variables(run.causes[-1]),
            "causes": [event_variables(cause) for cause in run.causes],
            "steps": run.outputs(),
        }
        try:
            if not expressions.holds(step.condition, variables, f"steps.{step.id}.if"):
                skipped = replace(
                    state, state=StepState.SKIPPED, reason=f"{step.condition} does not hold", end_time=now()
                )
                await self._ended(stored, index, skipped)
                return
            settings = expressions.resolve(step.settings, variables, f"steps.{step.id}")
            request_id = f"{run.name}/{step.id}/{state.tries}"
            resource = await self.actions[step.action].start(run.project, settings, request_id)
        except (Unavailable, Conflict):
            raise
        except PenstockError as error:
            await self._fail(stored, index, replace(state, reason=error.message))
            return
        started = replace(state, state=StepState.RUNNING, resource=resource, start_time=now())
        await self.repository.runs.save(stored, run.with_step(index, started))

    async def _follow(self, stored: Stored[PipelineRun], index: int) -> None:
        state = stored.value.step_runs[index]
        try:
            async for outcome in self.actions[state.action].follow(state.resource):
                if outcome.ended:
                    # Through a Struct and back: what is stored is what expressions will see after a restart too.
                    outputs = from_struct(to_struct(dict(outcome.outputs)))
                    done = replace(state, state=StepState.SUCCEEDED, outputs=outputs, end_time=now())
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
        if index is not None:
            step = run.step_runs[index]
            if step.state is StepState.RUNNING:
                try:
                    await self.actions[step.action].cancel(step.resource)
                except (Unavailable, Conflict):
                    raise
                except PenstockError as error:
                    log.info("%s of %s was not cancelled: %s", step.id, run.name, error)  # it ended by itself
            run = run.with_step(index, replace(step, state=StepState.CANCELLED, end_time=now()))
        value = replace(run, state=RunState.CANCELLED, end_time=now())
        event = NewEvent("pipeline.run.cancelled", {"run": run.name, "pipeline": run.pipeline})
        await self.repository.runs.save(stored, value, [event])


def _step_event(run: PipelineRun, step: StepRun) -> NewEvent:
    return NewEvent(
        "pipeline.run.step_ended",
        {"run": run.name, "step": step.id, "state": str(step.state), "resource": step.resource},
    )
