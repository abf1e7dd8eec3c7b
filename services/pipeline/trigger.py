"""From an event to a window of causes: filter, recurrence, debounce; every decision is recorded.

Idempotent by the event: its row in the ledger names the window that it goes to, and a window knows its causes, so an
event that comes again (after a crash anywhere in here) finds where it got to.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from penstock.errors import AlreadyExists, InvalidArgument
from penstock.events import EVENT_TYPES, Event
from penstock.store import now
from services.pipeline import expressions
from services.pipeline.causes import cause_of, event_variables
from services.pipeline.ledger import Decision, digest
from services.pipeline.model import Cause, Outcome, Pipeline, Window, run_name
from services.pipeline.recurrence import Recurrence
from services.pipeline.repository import Repository
from services.pipeline.windows import Windows


@dataclass
class Triggers:
    """Decides about events."""

    repository: Repository
    windows: Windows
    recurrence: Recurrence

    async def handle(self, event: Event) -> None:
        """Look at one event for every pipeline that waits for its type."""
        if not event.sequence and event.type in EVENT_TYPES:
            return  # from outside, and calls itself one of Penstock's own: nobody waits for that
        cause: Cause | None = None
        for stored in await self.repository.triggered_by(event.project, event.type):
            # An event that was on its way when the pipeline was made is none of its business.
            if event.time >= stored.value.create_time:
                cause = cause or cause_of(event)
                await self._handle(stored.value, cause)

    async def _handle(self, pipeline: Pipeline, cause: Cause) -> None:
        ledger = self.repository.ledger
        decision = await ledger.find(pipeline.name, cause) or await self._decide(pipeline, cause)
        if not decision.window or decision.outcome is not Outcome.DEBOUNCED:
            return
        if decision.window == _own_window(pipeline, cause):
            await self._fire(pipeline, cause, decision.window)
        else:
            await self._gather(pipeline, cause, decision)

    async def _decide(self, pipeline: Pipeline, cause: Cause) -> Decision:
        outcome, reason = await self._judge(pipeline, cause)
        window = ""
        if outcome is Outcome.DEBOUNCED:
            # The window is there before the ledger names it, and the ledger names it before it takes the cause.
            gathers = pipeline.trigger.quiet is not None
            window = await self._open_window(pipeline, cause) if gathers else _own_window(pipeline, cause)
        return await self.repository.ledger.decide(pipeline.name, cause, outcome, reason, window)

    async def _judge(self, pipeline: Pipeline, cause: Cause) -> tuple[Outcome, str]:
        trigger = pipeline.trigger
        if pipeline.paused:
            return Outcome.FILTERED, "the pipeline is paused"
        try:
            event = {"event": event_variables(cause)}
            passes = await asyncio.to_thread(expressions.holds, trigger.filter, event, "on.filter")
        except InvalidArgument as error:
            return Outcome.FAILED, error.message
        if not passes:
            return Outcome.FILTERED, f"the filter does not hold: {trigger.filter}"
        recurrences = await self.recurrence.count(pipeline, cause)
        if recurrences >= pipeline.max_recurrence:
            return Outcome.STOPPED, f"{recurrences} runs of this pipeline led to this event already"
        return Outcome.DEBOUNCED, "waits with others" if trigger.quiet is not None else "about to run"

    async def _fire(self, pipeline: Pipeline, cause: Cause, window_id: str) -> None:
        """Without a debounce: a window of its own, fired from the beginning."""
        at = now()
        window = Window(pipeline.name, pipeline.project, (cause,), at, at, run=run_name(pipeline.name, window_id))
        try:
            await self.repository.windows.create(window_id, window)
        except AlreadyExists:
            window = (await self.repository.windows.get(window_id)).value
        await self.windows.begin(window_id, window)

    async def _gather(self, pipeline: Pipeline, cause: Cause, decision: Decision) -> None:
        while not await self._append(pipeline, decision.window, cause):
            decision = await self.repository.ledger.move(decision, await self._open_window(pipeline, cause))
        self.windows.grown.set()

    async def _append(self, pipeline: Pipeline, window_id: str, cause: Cause) -> bool:
        """Whether the window has the cause now; False if it fired without it, which is for ever."""
        stored = await self.repository.windows.change(
            window_id, lambda window: window.with_cause(cause, now(), pipeline.trigger)
        )
        return stored.value.holds(cause.key)

    async def _open_window(self, pipeline: Pipeline, cause: Cause) -> str:
        """The id of the window that gathers now; made, empty, if there is none."""
        while True:
            stored = await self.repository.open_window(pipeline.name)
            if stored is not None:
                return stored.id
            window_id = _window_id(pipeline, cause, now())
            try:
                await self.repository.windows.create(window_id, Window(pipeline.name, pipeline.project))
            except AlreadyExists:
                continue  # somebody else opened one meanwhile: use that
            return window_id


def _own_window(pipeline: Pipeline, cause: Cause) -> str:
    """The window of an event that waits for no others."""
    return f"{pipeline.name}/windows/{digest(cause.key)}"


def _window_id(pipeline: Pipeline, cause: Cause, at: datetime) -> str:
    return f"{pipeline.name}/windows/{digest(f'{cause.key} {at.timestamp()}')}"
