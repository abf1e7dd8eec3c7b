"""Group commit for reports of metrics: those that come while one is being written share the next write.

Each report is durable when its call returns, and the database is asked once for all that wait: under load that is what
bounds how many jobs can report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from penstock.store import Rows

MAX_GROUP = 64  # reports a write; one may hold 1,000 points
Waiting: TypeAlias = tuple[Sequence[Mapping[str, Any]], asyncio.Future[None]]


class Appends:
    """Inserts rows for many callers at once."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._waiting: list[Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, durable on return. Raises what the insert raises, which then concerns the whole group."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((documents, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await written

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
            try:
                await self._rows.insert([document for documents, _ in group for document in documents])
            except BaseException as error:
                _settle(group, error)
                if not isinstance(error, Exception):
                    raise
            else:
                _settle(group, None)


def _settle(group: Sequence[Waiting], error: BaseException | None) -> None:
    for _, written in group:
        if written.done():  # its caller has gone
            continue
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)
