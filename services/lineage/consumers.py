"""event -> graph, nothing else."""

from __future__ import annotations

from penstock.events import Consumer, Event
from penstock.runtime.service import Context
from services.lineage.model import read
from services.lineage.repository import Graph

NAME = "lineage"


def projection(context: Context, graph: Graph) -> Consumer:
    """Every event, from the beginning; replays too."""

    async def add(event: Event) -> None:
        await graph.add(read(event))

    return Consumer(
        context.bus, context.database(), NAME, None, add, effects=False, fetch_history=context.fetch_history
    )
