"""Sending stored events again, to one rebuildable projection only: its own stream, so that nothing else is fired."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from penstock.events.bus import Bus
from penstock.events.envelope import Event, encode
from penstock.events.event_log import EventLog
from penstock.events.subjects import replay_subject
from penstock.store import Database


async def replay(database: Database, bus: Bus, consumer: str) -> int:
    """Publish every event of a service for the projection `consumer`, oldest first; returns how many.

    Repeating it is harmless: the projection's cursors know what it has. Raises Unavailable.
    """
    count = 0
    async for events in EventLog(database).all():
        ordered = sorted(events, key=lambda event: (event.subject, event.sequence))
        groups = [list(group) for _, group in itertools.groupby(ordered, key=lambda event: event.subject)]
        await asyncio.gather(*(_publish(bus, consumer, group) for group in groups))
        count += len(events)
    return count


async def _publish(bus: Bus, consumer: str, events: Sequence[Event]) -> None:
    for event in events:
        headers, body = encode(event)
        await bus.send(replay_subject(consumer, event.subject, event.type), body, headers)
