"""Windows that fire: a compare-and-set freezes the causes and names the run, which is then begun under that name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from penstock import names
from penstock.errors import AlreadyExists, Conflict, NotFound
from penstock.events import NewEvent
from penstock.runtime.tasks import set_within
from penstock.store import Stored, now
from services.pipeline.causes import caused_by
from services.pipeline.model import Cause, Outcome, Pipeline, Window, begin, run_name
from services.pipeline.repository import Repository

SWEEP = 1.0  # seconds between looks at windows that another process may have opened, or left
log = logging.getLogger(__name__)


@dataclass
class Windows:
    """Fires windows when their time has come. `grown` says that one took a cause, `begun` that a run was begun."""

    repository: Repository
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Fire windows whose time has come and finish those that fired before a restart; runs for ever."""
        while True:
            self.grown.clear()
            pause = SWEEP
            for stored in await self.repository.gathering():
                left = (stored.value.fire_at - now()).total_seconds() if stored.value.fire_at else SWEEP
                if left <= 0:
                    await self._guarded(self._fire(stored), stored.id)
                else:
                    pause = min(pause, left)
            for stored in await self.repository.unstarted_windows():
                await self._guarded(self.begin(stored.id, stored.value), stored.id)
            await set_within(self.grown, pause)

    async def _guarded(self, work: Awaitable[None], window_id: str) -> None:
        """One window that cannot fire must not hold up the others; it is tried again at the next look."""
        try:
            await work
        except Exception:
            log.exception("the window %s could not fire", window_id)

    async def _fire(self, stored: Stored[Window]) -> None:
        try:
            fired = await self.repository.windows.save(
                stored, stored.value.fired(run_name(stored.value.pipeline, stored.id))
            )
        except Conflict:
            return  # it took one more cause, so its time moved; or another process was faster
        await self.begin(fired.id, fired.value)

    async def begin(self, window_id: str, window: Window) -> None:
        """Create the run of a fired window, under its window's name, and say so in the ledger. Again is once."""
        try:
            pipeline = (await self.repository.pipelines.get(window.pipeline)).value
        except NotFound:
            causes: list[Cause] = []
        else:
            # One that was deleted and made again begins anew.
            causes = [cause for cause in window.causes if cause.time >= pipeline.create_time]
            if causes:
                await self._create_run(pipeline, window.run, causes)
        for cause in window.causes:
            if cause in causes:
                await self.repository.ledger.settle(window.pipeline, cause, Outcome.FIRED, run=window.run)
            else:
                reason = "the pipeline was deleted before it ran"
                await self.repository.ledger.settle(window.pipeline, cause, Outcome.STOPPED, reason)
        await self.repository.windows.change(window_id, lambda w: w if w.started else replace(w, started=True))
        self.begun.set()

    async def _create_run(self, pipeline: Pipeline, name: str, causes: Sequence[Cause]) -> None:
        run = begin(pipeline, names.parse(name).id, causes, now())
        data = {"run": run.name, "pipeline": pipeline.name, "causes": [cause.key for cause in causes]}
        with caused_by(causes[-1]), suppress(AlreadyExists):  # begun before a restart, or by another process
            await self.repository.runs.create(run.name, run, [NewEvent("pipeline.run.started", data)])
