"""The events a service ever emitted, append-only beside its aggregates: what gaps and replays are filled from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from penstock.events.envelope import Event, from_entry
from penstock.store import Database, Rows, Span, format_time

MAX_EVENTS = 1_000  # of one answer


class EventLog:
    """The `events` collection of one service."""

    def __init__(self, database: Database) -> None:
        # Composite texts, since portable indexes have one field: both are unique, and ordered as they read.
        self._rows = Rows(database, "events", indexes=("position", "at"))

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._rows.prepare()

    async def append(self, entries: Sequence[tuple[Event, str]]) -> None:
        """Keep events with their outbox entries; those that are there already stay."""
        await self._rows.insert(
            {
                "_id": event.id,
                "position": _position(event.subject, event.sequence),
                "at": f"{format_time(event.time)}/{event.id}",
                "entry": entry,
            }
            for event, entry in entries
        )

    async def of_resource(self, resource: str, after: int = 0, limit: int = MAX_EVENTS) -> list[Event]:
        """The events of a resource after a sequence, in order, at most `limit`."""
        span = Span("position", gt=_position(resource, after), lt=f"{resource}@~")
        page = await self._rows.find(span=span, limit=limit)
        return [from_entry(row["entry"]) for row in page]

    async def all(self) -> AsyncIterator[list[Event]]:
        """All events, oldest first, in portions."""
        async for rows in self._rows.scan(order_by="at", batch=500):
            yield [from_entry(row["entry"]) for row in rows]


def _position(resource: str, sequence: int) -> str:
    return f"{resource}@{sequence:012d}"
