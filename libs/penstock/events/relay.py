"""The relay: from outboxes to the `events` collection, then to JetStream, and only then out of the outboxes.

It may die at any instant: what is still in an outbox is done again under the same ids, which the collection,
JetStream's duplicate window and the consumers' cursors all recognise. Writes of this process hand their events over
directly; a sweep over the outboxes finds what a crash, or another process, left.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence
from typing import Any

from penstock.events.bus import Bus
from penstock.events.envelope import Event, from_entry
from penstock.events.event_log import EventLog
from penstock.runtime.tasks import set_within
from penstock.store import Aggregates, Database, Pending

log = logging.getLogger(__name__)

BATCH = 500  # resources a round
IN_FLIGHT = 64  # resources that publish at once; more gains nothing, each waits for the same fsync
SWEEP = (2.0, 10.0)  # seconds between sweeps: after something was found, and after a long silence
_BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)
_KNOWN = 20_000  # resources whose last published sequence is remembered


class Relay:
    """Publishes the events of some aggregates of one database, one in flight per resource. One `run` at a time."""

    def __init__(self, database: Database, aggregates: Sequence[Aggregates[Any]], bus: Bus) -> None:
        self._bus = bus
        self._log = EventLog(database)
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._outboxes = [_Outbox(found, self._wake) for found in aggregates]

    async def run(self) -> None:
        """Relay for ever: woken by writes of this process, sweeping now and then, backing off when a server is down."""
        failures, silence, swept = 0, SWEEP[0], 0.0
        try:
            while True:
                self._wake.clear()
                try:
                    if time.monotonic() - swept >= silence or any(outbox.behind for outbox in self._outboxes):
                        found = await self.once()
                        swept, silence = time.monotonic(), SWEEP[0] if found else min(silence * 1.5, SWEEP[1])
                    else:
                        await asyncio.gather(*(self._pass_on(outbox, outbox.take()) for outbox in self._outboxes))
                except Exception as error:  # noqa: BLE001 (whatever it is, the next round must come)
                    delay = _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]
                    failures, swept = failures + 1, 0.0  # what was handed over is in the outboxes too
                    log.warning("relaying events failed, again in %.1f s: %s", delay, error)
                    await asyncio.sleep(delay)
                    continue
                failures = 0
                if not any(outbox.behind for outbox in self._outboxes):
                    await set_within(self._wake, max(0.0, swept + silence - time.monotonic()))
        finally:
            for outbox in self._outboxes:
                outbox.stop()

    async def once(self) -> int:
        """One sweep over all outboxes; returns how many events were in them. Raises after doing what it could."""
        return sum(await asyncio.gather(*(self._sweep(outbox) for outbox in self._outboxes)))

    async def _sweep(self, outbox: _Outbox) -> int:
        found = 0
        await outbox.trimmed()
        outbox.forget()
        while pending := await outbox.aggregates.pending(BATCH):
            await self._pass_on(outbox, pending)
            await outbox.trimmed()
            found += sum(len(one.entries) for one in pending)
            if len(pending) < BATCH:
                break
        return found

    async def _pass_on(self, outbox: _Outbox, pending: Sequence[Pending]) -> None:
        """Keep, publish, then have trimmed. One resource's failure holds up no other; the first is raised."""
        if not pending:
            return
        batches = [[(from_entry(entry), entry) for entry in one.entries] for one in pending]
        # Kept first: whoever sees an event on the stream finds it in the log too.
        await self._log.append(list(itertools.chain.from_iterable(batches)))
        outcomes = await asyncio.gather(*(self._publish([event for event, _ in batch]) for batch in batches))
        outbox.done([one for one, failure in zip(pending, outcomes, strict=True) if failure is None])
        failures = [(one, failure) for one, failure in zip(pending, outcomes, strict=True) if failure is not None]
        for one, failure in failures:
            log.warning("events of %s are not published yet: %s", one.id, failure)
        if failures:
            raise failures[0][1]

    async def _publish(self, events: Sequence[Event]) -> Exception | None:
        """Publish a resource's events in order; the error that stopped it, if any."""
        async with self._slots:
            try:
                for event in events:
                    await self._bus.publish(event)
                    self._bus.figures.published(event.type, event.time)
            except Exception as error:  # noqa: BLE001 (other resources' events go on; the caller raises it)
                return error
        return None


class _Outbox:
    """The outboxes of one kind of aggregates: what was handed over, and how far each resource is published.

    Writes are handed over when they are answered, in any order, or never. So what is handed over is passed on only if
    nothing can lie before it: it is the resource's beginning, or follows what is published. Whatever else there is, a
    sweep passes on as it lies in the outbox, all of it and in order: nothing is trimmed that was not passed on before.
    """

    def __init__(self, aggregates: Aggregates[Any], wake: asyncio.Event) -> None:
        self.aggregates = aggregates
        self._wake = wake
        self.behind = False  # whether a sweep is needed at once
        self._fresh: list[Pending] = []
        self._published: dict[str, int] = {}  # all up to here is published; maybe more is
        self._to_trim: list[Pending] = []
        self._trimming: asyncio.Task[None] | None = None
        aggregates.on_events(self._hand_over)

    def take(self) -> list[Pending]:
        """What was handed over, as far as it follows what is published; for the rest a sweep is needed."""
        fresh, self._fresh = self._fresh[:BATCH], self._fresh[BATCH:]
        joined: dict[str, Pending] = {}
        for one in fresh:
            before, first = joined.get(one.id), one.sequence - len(one.entries)
            # Of a resource that is not known, anything may be in the outbox already: another writer's answer is late.
            last = before.sequence if before else self._published.get(one.id, 0)
            if first == last:
                entries = (*before.entries, *one.entries) if before else one.entries
                joined[one.id] = Pending(one.id, one.sequence, entries)
            elif one.sequence > last:
                self.behind = True  # something before it is only in the outbox
        if self._fresh:
            self._wake.set()
        return list(joined.values())

    def forget(self) -> None:
        """A sweep will see all that was handed over so far."""
        self._fresh.clear()
        self.behind = False

    def done(self, published: Sequence[Pending]) -> None:
        """Remember what is published, and trim it from the outboxes in the background."""
        for one in published:
            self._published.pop(one.id, None)  # re-inserted as the newest
            self._published[one.id] = one.sequence
        while len(self._published) > _KNOWN:
            del self._published[next(iter(self._published))]
        self._to_trim.extend(published)
        if self._to_trim and (self._trimming is None or self._trimming.done()):
            self._trimming = asyncio.create_task(self._trim())

    async def trimmed(self) -> None:
        """Return when everything published is out of the outboxes. If that fails, a sweep does it again."""
        if self._trimming is not None:
            await asyncio.shield(self._trimming)

    def stop(self) -> None:
        """End the work in the background."""
        if self._trimming is not None:
            self._trimming.cancel()
            self._trimming = None

    async def _trim(self) -> None:
        try:
            while self._to_trim:
                batch, self._to_trim = self._to_trim[:BATCH], self._to_trim[BATCH:]
                await self.aggregates.trim(batch)
        except Exception as error:  # noqa: BLE001 (it is still in the outboxes: a sweep finds it)
            self._to_trim.clear()
            self.behind = True
            log.warning("published events could not be trimmed yet: %s", error)

    def _hand_over(self, pending: Pending) -> None:
        self._fresh.append(pending)
        self._wake.set()
