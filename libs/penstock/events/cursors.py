"""How far each consumer is with each resource, stored; advances that come together are written together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from penstock.errors import Unavailable
from penstock.store import Database, Rows, RowUpdate, now

_BATCH = 500
_REMEMBERED = 20_000


@dataclass(frozen=True)
class Cursor:
    """The last sequence that a consumer took of a resource; `parked` while a dead letter holds the resource up."""

    resource: str
    sequence: int = 0
    parked: bool = False
    failures: int = 0  # of the event after `sequence`
    stored: bool = False


class Cursors:
    """The cursors of one consumer."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._consumer = consumer
        self._rows = Rows(database, "cursors", indexes=("consumer",))
        self._consumers = Rows(database, "consumers")
        self._waiting: list[tuple[Cursor, Cursor, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._remembered: dict[str, Cursor] = {}

    def remembered(self, resource: str) -> Cursor | None:
        """The cursor as this process last read or stored it."""
        return self._remembered.get(resource)

    async def created(self) -> datetime:
        """When this consumer was first made (now, at the first call); it is remembered."""
        row = {"_id": self._consumer, "created": now().isoformat()}
        await self._consumers.insert([row])
        found = await self._consumers.get(self._consumer)
        return datetime.fromisoformat((found or row)["created"])

    async def load(self, resources: Sequence[str]) -> dict[str, Cursor]:
        """The cursors of resources; those never seen begin at 0."""
        rows = await self._rows.get_many([self._id(resource) for resource in resources])
        cursors = {resource: _cursor(resource, rows.get(self._id(resource))) for resource in resources}
        self._remember(cursors.values())
        return cursors

    async def move(self, old: Cursor, new: Cursor) -> Cursor:
        """Store `new` in place of `old`, together with other moves made at this time. Never moves a cursor back."""
        if old == new:
            return new
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((old, new, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())  # of its own: whoever came first may be cancelled
        await future
        moved = replace(new, stored=True)
        self._remember([moved])
        return moved

    async def reset(self) -> int:
        """Forget all cursors: a projection is about to be rebuilt. Returns how many there were.

        Nothing may ask for a move meanwhile; one that was asked for before is waited for.
        """
        if self._writer is not None:
            await asyncio.wait([self._writer])
        self._remembered.clear()
        rows = await self._rows.find(eq={"consumer": self._consumer})
        return await self._rows.delete([row["_id"] for row in rows])

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            await self._write(batch)

    async def _write(self, batch: list[tuple[Cursor, Cursor, asyncio.Future[None]]]) -> None:
        """Store the moves of a batch; their futures tell whether that worked."""
        try:
            fresh = [self._row(new) for old, new, _ in batch if not old.stored]
            if fresh:
                known = len(fresh) - await self._rows.insert(fresh)
                if known:
                    await self._settle([new for old, new, _ in batch if not old.stored])
            moves = [(old, new) for old, new, _ in batch if old.stored]
            if moves and await self._rows.update_many([self._update(*move) for move in moves]) < len(moves):
                await self._settle([new for _, new in moves])
        except Exception as error:  # noqa: BLE001 (each lane gets it, and decides)
            for *_, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for *_, future in batch:
            if not future.done():
                future.set_result(None)

    async def _settle(self, wanted: Sequence[Cursor]) -> None:
        """After lost races (another process, or an unknown outcome): move on those that are still behind."""
        while wanted:
            stored = await self.load([cursor.resource for cursor in wanted])
            if not all(cursor.stored for cursor in stored.values()):
                raise Unavailable(f"The cursors of {self._consumer} were reset: it begins anew.")
            behind = [c for c in wanted if stored[c.resource].sequence < c.sequence]
            same = [c for c in wanted if _differs(stored[c.resource], c)]
            for cursor in {c.resource: c for c in (*behind, *same)}.values():
                update = self._update(stored[cursor.resource], cursor)
                await self._rows.update(update.id, expect=update.expect, set=update.set, unset=update.unset)
            wanted = behind

    def _remember(self, cursors: Iterable[Cursor]) -> None:
        for cursor in cursors:
            self._remembered.pop(cursor.resource, None)  # re-inserted as the newest
            self._remembered[cursor.resource] = cursor
        while len(self._remembered) > _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _id(self, resource: str) -> str:
        return f"{self._consumer}/{resource}"

    def _row(self, cursor: Cursor) -> dict[str, Any]:
        row = {"_id": self._id(cursor.resource), "consumer": self._consumer, "resource": cursor.resource}
        return {**row, **_fields(cursor)}

    def _update(self, old: Cursor, new: Cursor) -> RowUpdate:
        return RowUpdate(self._id(new.resource), expect={"sequence": old.sequence}, set=_fields(new))


def _fields(cursor: Cursor) -> dict[str, Any]:
    return {"sequence": cursor.sequence, "parked": cursor.parked, "failures": cursor.failures}


def _differs(stored: Cursor, wanted: Cursor) -> bool:
    return stored.sequence == wanted.sequence and _fields(stored) != _fields(wanted)


def _cursor(resource: str, row: dict[str, Any] | None) -> Cursor:
    if row is None:
        return Cursor(resource)
    return Cursor(resource, row["sequence"], row["parked"], row["failures"], stored=True)
