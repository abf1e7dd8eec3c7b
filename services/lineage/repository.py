"""The graph in the database, read a level at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstock.store import Database, Document, Rows, RowUpdate
from services.lineage.model import Edge, Facts, Node, inside, unique

MAX_EDGES = 10_000  # of one answer
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
        await self._add_nodes(facts.nodes)
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

    async def _add_nodes(self, nodes: Sequence[Node]) -> None:
        """By compare-and-set on the last sequence: whoever was late, in this process or another, takes nothing back."""
        while nodes:
            known = await self._nodes.get_many([node.name for node in nodes])
            fresh = [node for node in nodes if node.name not in known]
            later = [node for node in nodes if node.name in known and known[node.name]["sequence"] < node.sequence]
            added = await self._nodes.insert(map(_row, fresh)) if fresh else 0
            updates = [_update(known[node.name], node) for node in later]
            changed = await self._nodes.update_many(updates) if updates else 0
            nodes = [] if (added, changed) == (len(fresh), len(later)) else [*fresh, *later]

    async def clear(self) -> None:
        """Forget everything."""
        await self._nodes.drop()
        await self._edges.drop()

    async def nodes(self, names: Iterable[str], project: str) -> dict[str, Document]:
        """The nodes of these names that are known in a project."""
        found = await self._nodes.get_many(list(names))
        return {name: node for name, node in found.items() if node["project"] == project}

    async def ancestors(self, start: Sequence[str], project: str) -> list[Edge]:
        """All edges on paths within a project that lead to `start`; of more than 10,000, the nearest."""
        return await self._walk(start, "target", "source", project)

    async def descendants(self, start: Sequence[str], project: str) -> list[Edge]:
        """All edges on paths within a project that lead from `start`; of more than 10,000, the nearest."""
        return await self._walk(start, "source", "target", project)

    async def _walk(self, start: Sequence[str], near: str, far: str, project: str) -> list[Edge]:
        """Breadth first: a query per level and hundred nodes, not per node."""
        found: list[Edge] = []
        seen, level = set(start), list(start)
        while level and len(found) < MAX_EDGES:
            rows: list[Document] = []
            for at in range(0, len(level), _IN):
                rows += await self._edges.find(any_of={near: level[at : at + _IN]}, limit=MAX_EDGES - len(found))
            rows = [row for row in rows if inside(row[far], project)]
            found += [Edge(row["source"], row["target"], row["relation"]) for row in rows]
            level = [name for name in dict.fromkeys(str(row[far]) for row in rows) if name not in seen]
            seen.update(level)
        return unique(found)[:MAX_EDGES]


def _row(node: Node) -> Document:
    return {
        "_id": node.name,
        "kind": node.kind,
        "project": node.project,
        "attributes": dict(node.attributes),
        "time": node.time,
        "sequence": node.sequence,
    }


def _update(known: Document, node: Node) -> RowUpdate:
    attributes = {**known["attributes"], **node.attributes}
    before = {"sequence": known["sequence"]}
    return RowUpdate(node.name, expect=before, set={"attributes": attributes, "sequence": node.sequence})
