"""Which requests an aggregate has carried out: each is known for 24 hours, however many come after it.

The newest are in the aggregate's document, in the same write as what they did. Before they are too many there, the
older half is copied to rows beside it: so a document stays small, and a request is always in one place at least.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta

from penstock.store.codec import Document, format_time, now
from penstock.store.database import Database
from penstock.store.document import Remembered
from penstock.store.query import Span
from penstock.store.rows import Rows

LIFE = timedelta(hours=24)
KEPT = 64  # request ids in a document, at most
_FORGOTTEN = 4 * KEPT  # rows deleted at a time: more than are added, so that they become fewer
_TIME = 24  # characters of a time


class Requests:
    """The requests of one collection of aggregates."""

    def __init__(self, database: Database, kind: str) -> None:
        self._kind = kind
        self._rows = Rows(database, "store_requests", indexes=("time",))

    async def saw(self, document: Document, request_id: str | None) -> bool:
        """Whether this request was carried out in the last 24 hours. The document says what came before it was read."""
        if not request_id:
            return False
        known, oldest = Remembered.of(document), _oldest()
        if any(entry[_TIME:] == request_id and entry[:_TIME] >= oldest for entry in known.recent):
            return True
        if known.beside < oldest:
            return False
        row = await self._rows.get(self._place(document["_id"], request_id))
        return row is not None and row["time"] >= oldest

    def first(self, request_id: str | None) -> Remembered:
        """What the document of a new aggregate is to remember."""
        return Remembered((format_time(now()) + request_id,) if request_id else ())

    async def after(self, stored_id: str, known: Remembered, request_id: str) -> Remembered:
        """What a document is to remember when it has seen one more request; makes room for it first."""
        oldest = _oldest()
        recent = [entry for entry in known.recent if entry[:_TIME] >= oldest]
        beside = known.beside
        if len(recent) >= KEPT:
            half = len(recent) // 2
            await self._put_beside(stored_id, recent[:half], oldest)
            beside, recent = max(beside, *(entry[:_TIME] for entry in recent[:half])), recent[half:]
        return Remembered((*recent, format_time(now()) + request_id), beside)

    async def _put_beside(self, stored_id: str, entries: Sequence[str], oldest: str) -> None:
        rows = [{"_id": self._place(stored_id, entry[_TIME:]), "time": entry[:_TIME]} for entry in entries]
        await self._rows.upsert_many(rows)
        old = await self._rows.find(span=Span("time", lt=oldest), limit=_FORGOTTEN)
        await self._rows.delete([row["_id"] for row in old])

    def _place(self, stored_id: str, request_id: str) -> str:
        return hashlib.sha256(f"{self._kind}\n{stored_id}\n{request_id}".encode()).hexdigest()


def _oldest() -> str:
    return format_time(now() - LIFE)
