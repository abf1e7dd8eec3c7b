"""Read your writes: whether a consumer has applied the events that a reader knows of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from penstock import names
from penstock.errors import InvalidArgument
from penstock.events.cursors import Cursors
from penstock.events.registry import AGGREGATES
from penstock.store import Database

PATIENCE = 2.0  # seconds that a read waits, as promised
MAX_NAMES = 1_000
_LOOK = 0.03  # seconds between looks at the cursors


class Freshness:
    """How far a consumer is, asked of its cursors, so that every process gives the same answer."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._cursors = Cursors(database, consumer)

    async def reached(self, at_least: Mapping[str, int], project: str) -> bool:
        """Wait, at most 2 s, until the events up to these sequences (by resource) were applied; answers whether.

        Resources of other projects than the one that is asked about are nobody's business here, and left out.
        """
        missing = _of_project(at_least, project)
        deadline = time.monotonic() + PATIENCE
        while missing:
            cursors = await self._cursors.load(list(missing))
            # What waits behind a dead letter was taken, not applied.
            missing = {
                name: sequence
                for name, sequence in missing.items()
                if cursors[name].sequence < sequence or cursors[name].parked
            }
            if missing:
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(_LOOK)
        return True


def _of_project(at_least: Mapping[str, int], project: str) -> dict[str, int]:
    """The sequences of a project's aggregates: what is told of a child is the sequence of what holds its events."""
    if len(at_least) > MAX_NAMES:
        raise InvalidArgument(f"at_least takes {MAX_NAMES} resources.", field="at_least")
    wanted: dict[str, int] = {}
    for text, sequence in at_least.items():
        name = names.parse(text, field="at_least")
        while f"{name.service}.{name.kind}" not in AGGREGATES and name.kind != "project":
            name = names.parse(name.parent)
        if name.project == project and f"{name.service}.{name.kind}" in AGGREGATES:
            wanted[str(name)] = max(sequence, wanted.get(str(name), 0))
    return wanted
