"""The graph in the database, read a level at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.store import Database, Document, Rows
from services.lineage.model import Edge, Facts, merged, unique

MAX_NODES = 10_000  # of one answer
_IN = 100  # values of one `any_of`


class Graph:
    """Nodes by name, edges by either end."""

    def __init__(self, database: Database) -> None:
        self._nodes = Rows(database, "nodes", indexes=("project",))
        self._edges = Rows(database, "edges", indexes=("source", "target"))

    async def prepare(self) -> None:
        """Make the indexes."""
        await self._nodes.prepare()
        await self._edges.prepare()

    async def add(self, facts: Facts) -> None:
        """Add what an event says. Idempotent; events of one resource must come in their order."""
        if facts.nodes:
            known = await self._nodes.get_many([node.name for node in facts.nodes])
            await self._nodes.upsert_many([merged(known.get(node.name), node) for node in facts.nodes])
        if facts.edges:
            await self._edges.insert(
                [
                    {
                        "_id": f"{edge.target} {edge.relation} {edge.source}",
                        "source": edge.source,
                        "target": edge.target,
                        "relation": edge.relation,
                    }
                    for edge in facts.edges
                ]
            )

    async def clear(self) -> None:
        """Forget everything."""
        await self._nodes.drop()
        await self._edges.drop()

    async def nodes(self, names: Iterable[str]) -> dict[str, Document]:
        """The nodes of these names that are known."""
        return await self._nodes.get_many(list(names))

    async def ancestors(self, start: Sequence[str]) -> list[Edge]:
        """All edges on paths that lead to `start`."""
        return await self._walk(start, "target", "source")

    async def descendants(self, start: Sequence[str]) -> list[Edge]:
        """All edges on paths that lead from `start`."""
        return await self._walk(start, "source", "target")

    async def _walk(self, start: Sequence[str], near: str, far: str) -> list[Edge]:
        """Breadth first: a query per level and hundred nodes, not per node."""
        found: list[Edge] = []
        seen, level = set(start), list(start)
        while level and len(found) < MAX_NODES:
            edges: list[Mapping[str, Any]] = []
            for at in range(0, len(level), _IN):
                edges += await self._edges.find(any_of={near: level[at : at + _IN]})
            found += [Edge(e["source"], e["target"], e["relation"]) for e in edges]
            level = [name for name in dict.fromkeys(str(e[far]) for e in edges) if name not in seen]
            seen.update(level)
        return unique(found)
