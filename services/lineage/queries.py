"""The questions: where did this come from, which records made it, what did it lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.errors import InvalidArgument, NotFound
from services.lineage.model import Edge, without_idle_events
from services.lineage.repository import Graph

if TYPE_CHECKING:
    from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub

ALL = "all"
ANSWERED = "answered"


@dataclass(frozen=True)
class Answer:
    """A part of the graph."""

    nodes: tuple[Mapping[str, Any], ...]
    edges: tuple[Edge, ...]

    def names(self) -> set[str]:
        """The names of its nodes."""
        return {node["_id"] for node in self.nodes}


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
        project = names.project_of(start)
        edges += await self.graph.ancestors([start], project)
        found = await self._answer({start}, edges, project)
        if start not in found.names():
            raise _unknown(start)
        prediction = (_prediction(str(names.parse(name))),) if edges[:1] and edges[0].relation == ANSWERED else ()
        return Answer((*prediction, *found.nodes), found.edges)

    async def trained_on(self, name: str) -> Trained:
        """The dataset version that a prediction, revision, model version, run or the version itself rests on.

        Raises NotFound while no event told of it, InvalidArgument for something that rests on none.
        """
        start, _ = _resource(name)
        parsed = names.parse(start)
        if parsed.kind == "dataset_version":
            return Trained(start, "")
        if parsed.kind not in ("revision", "model_version", "run"):
            raise InvalidArgument(
                f"{name} rests on no dataset version; trace a prediction, model version or run.", field="name"
            )
        version = await self._version_of(start)
        if not version:
            raise _unknown(start)
        previous = await self.previous(start)
        # Versions of two datasets cannot be compared.
        return Trained(version, previous if _dataset(previous) == _dataset(version) else "")

    async def previous(self, name: str) -> str:
        """The dataset version behind what the endpoint of a prediction or revision served before; "" if none."""
        start, _ = _resource(name)
        before = (await self._attributes(start)).get("previous", "")
        return await self._version_of(before) if before else ""

    async def _version_of(self, name: str) -> str:
        """The dataset version of a run, a model version, or the one behind a revision; "" if that is not known."""
        attributes = await self._attributes(name)
        if names.parse(name).kind == "revision":
            model_version = str(attributes.get("model_version", ""))
            return await self._version_of(model_version) if model_version else ""
        return str(attributes.get("dataset_version", ""))

    async def _attributes(self, name: str) -> Mapping[str, Any]:
        known = (await self.graph.nodes([name], names.project_of(name))).get(name)
        return known["attributes"] if known else {}

    async def impact(self, name: str) -> Answer:
        """Everything that came of `name`: of a record, through all versions that contain a revision of it."""
        parsed = names.parse(name)
        if parsed.kind != "record":
            start, _ = _resource(name)
            found = await self._descendants([start], parsed.project)
            if start not in found.names():
                raise _unknown(start)
            return found
        versions = await self._versions_with(str(parsed))
        found = await self._descendants(versions, parsed.project)
        contained = tuple(Edge(str(parsed), version, "contained_in") for version in versions)
        record = {"_id": str(parsed), "kind": "record", "attributes": {"versions": len(versions)}, "time": ""}
        return Answer((record, *found.nodes), (*contained, *found.edges))

    async def _descendants(self, start: Sequence[str], project: str) -> Answer:
        edges = without_idle_events(await self.graph.descendants(start, project))
        return await self._answer(set(start), edges, project)

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

    async def _answer(self, start: set[str], edges: Sequence[Edge], project: str) -> Answer:
        wanted = start | {edge.source for edge in edges} | {edge.target for edge in edges}
        nodes = await self.graph.nodes(sorted(wanted), project)
        return Answer(tuple(nodes.values()), tuple(edges))


def _unknown(name: str) -> NotFound:
    return NotFound(f"Nothing is known of {name} (yet): no event told of it.")


def _resource(name: str) -> tuple[str, list[Edge]]:
    """The node to begin at: a prediction's revision, whether or not the prediction was kept; else the resource."""
    parsed = names.parse(name)
    if parsed.kind != "prediction":
        return str(parsed), []
    return parsed.parent, [Edge(parsed.parent, str(parsed), ANSWERED)]


def _prediction(name: str) -> dict[str, Any]:
    return {"_id": name, "kind": "prediction", "attributes": {"recorded": False}, "time": ""}


def _dataset(version: str) -> str:
    return names.parse(version).parent if version else ""


def compared_with(trained: Trained, changed_since: str) -> str:
    """The version to compare with: as asked (a number or a name), by default the one served before; "" for none.

    Raises InvalidArgument for what is no version of the same dataset.
    """
    if changed_since == ALL:
        return ""
    if not changed_since:
        return trained.previous
    dataset = _dataset(trained.dataset_version)
    if changed_since.isascii() and changed_since.isdigit():
        changed_since = f"{dataset}/versions/{changed_since}"
    version = str(names.parse(changed_since, kind="dataset_version", field="changed_since"))
    if _dataset(version) != dataset:
        raise InvalidArgument(f"{version} is of another dataset than {trained.dataset_version}.", field="changed_since")
    return version
