"""From an event to a run: filter, recurrence, debounce; every decision is recorded.

Idempotent by the event: its decision row names the window that it went to, and a window knows its causes, so an event
that comes again (after a crash anywhere in here) finds where it got to.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from penstock import names
from penstock.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from penstock.events import Event, NewEvent
from penstock.store import Cause as Chain
from penstock.store import current_cause, format_time, now
from services.pipeline import expressions
from services.pipeline.model import Cause, Outcome, Pipeline, Window, begin
from services.pipeline.repository import Repository

SWEEP = 0.5  # seconds between looks for windows whose time has come
log = logging.getLogger(__name__)


def event_variables(cause: Cause) -> dict[str, Any]:
    """What expressions see as `event`."""
    return {
        "id": cause.event_id,
        "type": cause.type,
        "source": cause.source,
        "subject": cause.subject,
        "time": format_time(cause.time),
        "data": dict(cause.data),
        "correlation_id": cause.correlation_id,
    }


def _spellings(type: str) -> list[str]:
    return [type, f"dev.penstock.{type}.v1"]


@dataclass
class Triggers:
    """Decides about events and begins runs. `begun` is set when a run was begun."""

    repository: Repository
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, event: Event) -> None:
        """Look at one event for every pipeline that waits for its type."""
        cause = Cause(
            event_id=event.id,
            type=event.type,
            source=event.source,
            subject=event.subject,
            time=event.time,
            data=event.data,
            correlation_id=event.correlation_id or event.id,
            traceparent=event.traceparent,
        )
        for stored in await self.repository.triggered_by(event.project, _spellings(event.type)):
            # An event that was on its way when the pipeline was made is none of its business.
            if event.time >= stored.value.create_time:
                await self._decide(stored.value, cause)

    async def _decide(self, pipeline: Pipeline, cause: Cause) -> None:
        if pipeline.paused:
            await self._record(pipeline, cause, Outcome.FILTERED, "the pipeline is paused")
            return
        try:
            passes = expressions.holds(pipeline.trigger.filter, {"event": event_variables(cause)}, "on.filter")
        except InvalidArgument as error:
            await self._record(pipeline, cause, Outcome.FAILED, error.message)
            return
        if not passes:
            await self._record(
                pipeline, cause, Outcome.FILTERED, f"the filter does not hold: {pipeline.trigger.filter}"
            )
            return
        recurrences = await self._recurrences(pipeline, cause)
        if recurrences >= pipeline.max_recurrence:
            reason = f"the pipeline ran {recurrences} times in the chain that led to this event already"
            await self._record(pipeline, cause, Outcome.STOPPED, reason)
            return
        if pipeline.trigger.quiet is None or pipeline.trigger.max_wait is None:
            await self._fire_at_once(pipeline, cause)
        else:
            await self._gather(pipeline, cause, pipeline.trigger.quiet, pipeline.trigger.max_wait)

    async def _recurrences(self, pipeline: Pipeline, cause: Cause) -> int:
        """Runs of the pipeline in the ancestry of a cause: those of its chain, and of the chains of their causes."""
        seen: set[str] = set()
        waiting, count = [cause.correlation_id], 0
        while waiting:
            chain = waiting.pop()
            if chain in seen:
                continue
            seen.add(chain)
            for stored in await self.repository.runs_of_chain(pipeline.project, chain):
                run = stored.value
                count += run.pipeline == pipeline.name and not any(c.event_id == cause.event_id for c in run.causes)
                waiting += [c.correlation_id for c in run.causes]
        return count

    async def _fire_at_once(self, pipeline: Pipeline, cause: Cause) -> None:
        at = now()
        window_id = _window_id(pipeline, cause)
        window = Window(pipeline.name, pipeline.project, (cause,), at, at, run=_run_name(pipeline.name, window_id))
        try:
            await self.repository.windows.create(window_id, window)
        except AlreadyExists:
            window = (await self.repository.windows.get(window_id)).value
        await self._begin(window_id, window)

    async def _gather(self, pipeline: Pipeline, cause: Cause, quiet: float, max_wait: float) -> None:
        decision = await self.repository.decisions.get(_decision_id(pipeline, cause))
        if decision and decision.get("window") and await self._went_to(decision["window"], cause):
            return
        while True:
            at = now()
            stored = await self.repository.open_window(pipeline.name)
            if stored is None:
                fresh = Window(
                    pipeline.name, pipeline.project, (), at + timedelta(seconds=quiet), at + timedelta(seconds=max_wait)
                )
                try:
                    stored = await self.repository.windows.create(_window_id(pipeline, cause, at), fresh)
                except AlreadyExists:
                    continue  # somebody else opened one meanwhile: use that
            # The row first: it says where to look, should we die before or after the window took the cause.
            await self._record(pipeline, cause, Outcome.DEBOUNCED, "gathered with others", window=stored.id)
            if await self._append(stored.id, cause, quiet):
                self.opened.set()
                return

    async def _append(self, window_id: str, cause: Cause, quiet: float) -> bool:
        """Add a cause to an open window; False if the window fired without it."""
        taken = True

        def transition(window: Window) -> Window:
            nonlocal taken
            taken = not window.run or window.holds(cause.event_id)
            return window.with_cause(cause, now(), quiet) if not window.run else window

        await self.repository.windows.change(window_id, transition)
        return taken

    async def _went_to(self, window_id: str, cause: Cause) -> bool:
        try:
            return (await self.repository.windows.get(window_id)).value.holds(cause.event_id)
        except NotFound:
            return False

    async def run(self) -> None:
        """Fire windows whose time has come and finish those that fired before a restart; runs for ever."""
        while True:
            for stored in await self.repository.due_windows(now()):
                if stored.value.causes:
                    run = _run_name(stored.value.pipeline, stored.id)
                    try:
                        fired = await self.repository.windows.save(stored, stored.value.fired(run))
                    except Conflict:
                        continue  # it took one more cause: its time moved
                    await self._begin(fired.id, fired.value)
            for stored in await self.repository.unstarted_windows():
                await self._begin(stored.id, stored.value)
            await self._pause()

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self.opened.wait(), SWEEP)
        except TimeoutError:
            return
        self.opened.clear()
        await asyncio.sleep(0.05)

    async def _begin(self, window_id: str, window: Window) -> None:
        """Create the run of a fired window, under its window's name, and say so in the decisions."""
        try:
            pipeline = (await self.repository.pipelines.get(window.pipeline)).value
        except NotFound:
            log.info("the pipeline %s was deleted before its window fired", window.pipeline)
        else:
            run = begin(pipeline, names.parse(window.run).id, window.causes, now())
            event = NewEvent(
                "pipeline.run.started",
                {"run": run.name, "pipeline": pipeline.name, "causes": [c.event_id for c in window.causes]},
            )
            chain_of(window.causes[-1])
            with suppress(AlreadyExists):  # begun before a restart
                await self.repository.runs.create(run.name, run, [event])
            for cause in window.causes:
                await self._record(pipeline, cause, Outcome.FIRED, "", window=window_id, run=run.name)
            self.begun.set()
        await self.repository.windows.change(window_id, lambda w: w if w.started else replace(w, started=True))

    async def _record(
        self, pipeline: Pipeline, cause: Cause, outcome: Outcome, reason: str, *, window: str = "", run: str = ""
    ) -> None:
        at = now()
        row: Mapping[str, Any] = {
            "pipeline": pipeline.name,
            "order": f"{cause.time.timestamp():020.6f}-{_digest(cause.event_id)}",
            "decided": format_time(at),
            "outcome": str(outcome),
            "reason": reason,
            "window": window,
            "run": run,
            "cause": cause_document(cause),
        }
        await self.repository.decisions.upsert(_decision_id(pipeline, cause), row)


def chain_of(cause: Cause) -> None:
    """Make what this task does from now on part of a cause's chain."""
    current_cause.set(Chain(cause.correlation_id, cause.event_id, cause.traceparent))


def cause_document(cause: Cause) -> dict[str, Any]:
    """A cause as JSON."""
    return {
        "event_id": cause.event_id,
        "type": cause.type,
        "subject": cause.subject,
        "time": format_time(cause.time),
        "data": dict(cause.data),
        "correlation_id": cause.correlation_id,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:18]


def _decision_id(pipeline: Pipeline, cause: Cause) -> str:
    return f"{pipeline.name}|{_digest(f'{cause.source} {cause.event_id}')}"


def _window_id(pipeline: Pipeline, cause: Cause, at: datetime | None = None) -> str:
    """Fixed by the event for windows that fire at once; by the moment too for those that gather."""
    moment = f" {at.timestamp()}" if at else ""
    return f"{pipeline.name}/windows/{_digest(f'{cause.source} {cause.event_id}{moment}')}"


def _run_name(pipeline: str, window_id: str) -> str:
    return f"{pipeline}/runs/r{window_id.rsplit('/', 1)[1]}"
