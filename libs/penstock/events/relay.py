"""The relay: from outboxes to the `events` collection, to JetStream, and out of the outboxes, in that order.

It may die between any two of these steps: what is still in an outbox is done again under the same ids, which the
collection, JetStream's duplicate window and the consumers' cursors all recognise.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import Any

from penstock.events.bus import Bus
from penstock.events.envelope import Event, from_entry
from penstock.events.event_log import EventLog
from penstock.store import Aggregates, Database, Pending

log = logging.getLogger(__name__)

BATCH = 500  # resources a round
IN_FLIGHT = 64  # resources that publish at once; more gains nothing, each waits for the same fsync
SWEEP = (2.0, 10.0)  # seconds between looks at the outboxes when nobody wakes it: at first, and after a long silence
_BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)


class Relay:
    """Publishes the events of some aggregates of one database, one in flight per resource."""

    def __init__(self, database: Database, aggregates: Sequence[Aggregates[Any]], bus: Bus) -> None:
        self._aggregates = tuple(aggregates)
        self._bus = bus
        self._log = EventLog(database)
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        for found in self._aggregates:
            found.on_events(self._wake.set)

    async def run(self) -> None:
        """Relay for ever: woken by writes of this process, sweeping now and then, backing off when a server is down."""
        failures = 0
        silence = SWEEP[0]
        while True:
            self._wake.clear()
            try:
                moved = await self.once()
            except Exception as error:  # noqa: BLE001 (whatever it is, the next round must come)
                delay = _BACK_OFF[min(failures, len(_BACK_OFF) - 1)]
                failures += 1
                log.warning("relaying events failed, again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                continue
            failures = 0
            if moved:
                silence = SWEEP[0]
                continue
            if not await _wait(self._wake, silence):
                silence = min(silence * 1.5, SWEEP[1])

    async def once(self) -> int:
        """One round over all outboxes; returns how many events were published. Raises after doing what it could."""
        counts = [await self._relay(aggregates) for aggregates in self._aggregates]
        return sum(counts)

    async def _relay(self, aggregates: Aggregates[Any]) -> int:
        pending = await aggregates.pending(BATCH)
        if not pending:
            return 0
        batches = [[(from_entry(entry), entry) for entry in found.entries] for found in pending]
        await self._log.append(list(itertools.chain.from_iterable(batches)))
        outcomes = await asyncio.gather(*(self._publish([event for event, _ in batch]) for batch in batches))
        done: list[Pending] = []
        for found, batch, failure in zip(pending, batches, outcomes, strict=True):
            if failure is None:
                done.append(found)
            else:
                log.warning("events of %s are not published yet: %s", batch[0][0].subject, failure)
        await aggregates.trim(done)
        if failure := next((outcome for outcome in outcomes if outcome is not None), None):
            raise failure
        return sum(len(found.entries) for found in done)

    async def _publish(self, events: Sequence[Event]) -> Exception | None:
        """Publish a resource's events in order; the error that stopped it, if any."""
        async with self._slots:
            try:
                for event in events:
                    await self._bus.publish(event)
            except Exception as error:  # noqa: BLE001 (other resources' events go on; the caller raises it)
                return error
        return None


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` was set within `seconds`."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
