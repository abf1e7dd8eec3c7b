"""The questions: where did this come from, which records made it, what did it lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.errors import InvalidArgument, NotFound
from penstock.store import Document
from services.lineage.model import Edge
from services.lineage.repository import Graph

if TYPE_CHECKING:
    from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub

ALL = "all"


@dataclass(frozen=True)
class Answer:
    """A part of the graph."""

    nodes: tuple[Mapping[str, Any], ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Trained:
    """The dataset version behind something, and the one behind what was served before it ("" if none)."""

    dataset_version: str
    previous: str


@dataclass
class Queries:
    """Reads of the graph, and of the dataset service for records."""

    graph: Graph
    datasets: DatasetServiceAsyncStub

    async def trace(self, name: str) -> Answer:
        """Everything that `name` came from. Raises NotFound for something that no event told of."""
        start, edges = _resource(name)
        edges += await self.graph.ancestors([start])
        found = await self._answer({name, start}, edges)
        if start not in {node["_id"] for node in found.nodes}:
            raise NotFound(f"Nothing is known of {start} (yet): no event told of it.")
        prediction = () if name == start else (_prediction(name),)
        return Answer((*prediction, *found.nodes), found.edges)

    async def trained_on(self, name: str) -> Trained:
        """The dataset version that a prediction, revision, model version, run or the version itself rests on."""
        start, _ = _resource(name)
        kind = names.parse(start).kind
        if kind == "dataset_version":
            return Trained(start, "")
        node = await self._node(start)
        attributes = node["attributes"]
        if kind != "revision":
            version = str(attributes.get("dataset_version", ""))
            if not version:
                raise InvalidArgument(
                    f"{name} rests on no dataset version; trace a prediction, model or run.", field="name"
                )
            return Trained(version, "")
        version = await self._of_model(str(attributes.get("model_version", "")))
        previous = str(attributes.get("previous", ""))
        return Trained(version, await self._of_revision(previous) if previous else "")

    async def _of_revision(self, revision: str) -> str:
        known = (await self.graph.nodes([revision])).get(revision)
        return await self._of_model(str(known["attributes"].get("model_version", ""))) if known else ""

    async def _of_model(self, model_version: str) -> str:
        return str((await self._node(model_version))["attributes"].get("dataset_version", ""))

    async def _node(self, name: str) -> Document:
        found = (await self.graph.nodes([name])).get(name)
        if found is None:
            raise NotFound(f"Nothing is known of {name} (yet): no event told of it.")
        return found

    async def impact(self, name: str) -> Answer:
        """Everything that came of `name`: of a record, through all versions that contain a revision of it."""
        parsed = names.parse(name)
        if parsed.kind != "record":
            start, _ = _resource(name)
            return await self._answer({start}, await self.graph.descendants([start]))
        versions = await self._versions_with(name)
        edges = await self.graph.descendants(versions)
        used = {edge.source for edge in edges} & set(versions)
        found = await self._answer(used, edges)
        contained = tuple(Edge(name, version, "contained_in") for version in versions if version in used)
        record = {"_id": name, "kind": "record", "attributes": {"versions": len(versions)}, "time": ""}
        return Answer((record, *found.nodes), (*contained, *found.edges))

    async def _versions_with(self, record: str) -> list[str]:
        """The names of the versions that contain the record, oldest first."""
        parsed = names.parse(record)
        dataset = parsed.parent
        head = (await self.datasets.GetDataset(dataset_pb.GetDatasetRequest(name=dataset))).head
        numbers: set[int] = set()
        request = dataset_pb.ListRecordRevisionsRequest(name=record, page_size=1000)
        while True:
            page = await self.datasets.ListRecordRevisions(request)
            for revision in page.records:
                numbers.update(range(revision.revision, (revision.end_revision or head + 1)))
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return [f"{dataset}/versions/{number}" for number in sorted(numbers) if number <= head]

    async def _answer(self, start: set[str], edges: Sequence[Edge]) -> Answer:
        wanted = start | {edge.source for edge in edges} | {edge.target for edge in edges}
        nodes = await self.graph.nodes(sorted(wanted))
        return Answer(tuple(nodes.values()), tuple(edges))


def _resource(name: str) -> tuple[str, list[Edge]]:
    """The node to begin at: a prediction's revision, whether or not the prediction was kept; else the resource."""
    parsed = names.parse(name)
    if parsed.kind != "prediction":
        return str(parsed), []
    return parsed.parent, [Edge(parsed.parent, name, "answered")]


def _prediction(name: str) -> dict[str, Any]:
    return {"_id": name, "kind": "prediction", "attributes": {"recorded": False}, "time": ""}


def compared_with(trained: Trained, changed_since: str) -> str:
    """The version to compare with: as asked (a number or a name), by default the one served before; "" for none."""
    if changed_since == ALL:
        return ""
    if not changed_since:
        return trained.previous
    if changed_since.isascii() and changed_since.isdigit():
        return f"{names.parse(trained.dataset_version).parent}/versions/{int(changed_since)}"
    return str(names.parse(changed_since, kind="dataset_version", field="changed_since"))
