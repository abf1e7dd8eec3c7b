"""Read your writes: whether a consumer has applied the events that a reader knows of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from penstock.events.cursors import Cursors
from penstock.store import Database

PATIENCE = 2.0  # seconds that a read waits, as promised
_LOOK = 0.03  # seconds between looks at the cursors


class Freshness:
    """How far a consumer is, asked of its cursors, so that every process gives the same answer."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._cursors = Cursors(database, consumer)

    async def reached(self, at_least: Mapping[str, int]) -> bool:
        """Wait, at most 2 s, until the events up to these sequences (by resource) were applied; answers whether."""
        deadline = time.monotonic() + PATIENCE
        missing = dict(at_least)
        while missing:
            cursors = await self._cursors.load(list(missing))
            missing = {name: sequence for name, sequence in missing.items() if cursors[name].sequence < sequence}
            if missing:
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(_LOOK)
        return True
