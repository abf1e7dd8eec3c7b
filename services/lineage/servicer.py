"""proto <-> graph, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.lineage.v1 import lineage_service_pb2 as pb
from penstock.api.lineage.v1.lineage_service_pb2_grpc import LineageServiceServicer
from penstock.events import Consumer
from penstock.events.freshness import Freshness
from penstock.rpc.caller import caller
from penstock.rpc.channels import on_behalf_of
from penstock.rpc.structs import to_struct
from penstock.rpc.times import to_timestamp
from penstock.store import now, parse_time
from services.lineage.model import Edge
from services.lineage.queries import Queries, compared_with

Context = Any


def _node(node: Mapping[str, Any]) -> pb.Node:
    made = pb.Node(name=node["_id"], kind=node["kind"], attributes=to_struct(_finite(node["attributes"])))
    if node["time"]:
        made.time.FromDatetime(parse_time(node["time"]).astimezone(UTC))
    return made


def _finite(value: Any) -> Any:
    """Numbers that JSON has not (a metric may be NaN, kept as text already) never reach a Struct."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value


def _edge(edge: Edge) -> pb.Edge:
    return pb.Edge(source=edge.source, target=edge.target, relation=edge.relation)


def _changed(dataset: str, change: dataset_pb.Change) -> pb.TracedRecord:
    return pb.TracedRecord(
        name=names.build("record", *dataset.split("/")[1::2], change.key),
        key=change.key,
        revision=change.revision,
        change=change.kind,
        fields=change.fields,
        before=change.before,
        after=change.after,
        author=change.edit.author,
        time=change.edit.time,
        why=change.edit.why,
    )


def _record(record: dataset_pb.Record) -> pb.TracedRecord:
    return pb.TracedRecord(
        name=record.name,
        key=record.key,
        revision=record.revision,
        after=record.data,
        author=record.edit.author,
        time=record.edit.time,
        why=record.edit.why,
    )


class LineageServicer(LineageServiceServicer):
    """The lineage API."""

    def __init__(self, queries: Queries, freshness: Freshness, consumer: Consumer) -> None:
        self._queries = queries
        self._freshness = freshness
        self._consumer = consumer

    async def Trace(self, request: pb.TraceRequest, context: Context) -> pb.TraceResponse:
        stale = not await self._freshness.reached(request.at_least, names.project_of(request.name))
        as_of = to_timestamp(now())
        answer = await self._queries.trace(request.name)
        response = pb.TraceResponse(
            nodes=[_node(node) for node in answer.nodes],
            edges=[_edge(edge) for edge in answer.edges],
            stale=stale,
            as_of=as_of,
        )
        parsed = names.parse(request.name)
        if parsed.kind in ("prediction", "revision"):
            response.previous_dataset_version = await self._queries.previous(request.name)
        start = parsed.parent if parsed.kind == "prediction" else str(parsed)
        chains = {node["_id"]: node["attributes"].get("correlation_id", "") for node in answer.nodes}
        response.correlation_id = chains.get(start, "")
        return response

    async def ListTracedRecords(
        self, request: pb.ListTracedRecordsRequest, context: Context
    ) -> pb.ListTracedRecordsResponse:
        stale = not await self._freshness.reached(request.at_least, names.project_of(request.name))
        as_of = to_timestamp(now())
        trained = await self._queries.trained_on(request.name)
        compared = compared_with(trained, request.changed_since)
        version = names.parse(trained.dataset_version)
        response = pb.ListTracedRecordsResponse(
            dataset_version=trained.dataset_version, compared_with=compared, stale=stale, as_of=as_of
        )
        with on_behalf_of(names.project_of(request.name), caller().actor):
            if compared:
                diff = await self._queries.datasets.DiffVersions(
                    dataset_pb.DiffVersionsRequest(
                        parent=version.parent,
                        from_version=names.parse(compared).number,
                        to_version=version.number,
                        page_size=request.page_size,
                        page_token=request.page_token,
                    )
                )
                response.records.extend(_changed(version.parent, change) for change in diff.changes)
                response.next_page_token = diff.next_page_token
            else:
                page = await self._queries.datasets.ListRecords(
                    dataset_pb.ListRecordsRequest(
                        parent=version.parent,
                        version=version.number,
                        page_size=request.page_size,
                        page_token=request.page_token,
                    )
                )
                response.records.extend(_record(record) for record in page.records)
                response.next_page_token = page.next_page_token
        return response

    async def Impact(self, request: pb.ImpactRequest, context: Context) -> pb.ImpactResponse:
        stale = not await self._freshness.reached(request.at_least, names.project_of(request.name))
        as_of = to_timestamp(now())
        with on_behalf_of(names.project_of(request.name), caller().actor):
            answer = await self._queries.impact(request.name)
        return pb.ImpactResponse(
            nodes=[_node(node) for node in answer.nodes],
            edges=[_edge(edge) for edge in answer.edges],
            stale=stale,
            as_of=as_of,
        )

    async def ResetGraph(self, request: pb.ResetGraphRequest, context: Context) -> pb.ResetGraphResponse:
        await self._consumer.reset(self._queries.graph.clear)
        return pb.ResetGraphResponse()
