"""The wiring of the lineage service."""

from __future__ import annotations

from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub
from penstock.api.lineage.v1 import lineage_service_pb2
from penstock.api.lineage.v1.lineage_service_pb2_grpc import add_LineageServiceServicer_to_server
from penstock.events.freshness import Freshness
from penstock.rpc.server import Registration
from penstock.runtime.service import Context, Service
from services.lineage import consumers
from services.lineage.queries import Queries
from services.lineage.repository import Graph
from services.lineage.servicer import LineageServicer


def build(context: Context) -> Service:
    """Build the service."""
    graph = Graph(context.database())
    consumer = consumers.projection(context, graph)
    queries = Queries(graph, context.channels.stub(DatasetServiceStub, "dataset"))
    servicer = LineageServicer(queries, Freshness(context.database(), consumers.NAME), consumer)
    return Service(
        "lineage",
        [
            Registration(
                add_LineageServiceServicer_to_server,
                servicer,
                lineage_service_pb2.DESCRIPTOR.services_by_name["LineageService"].full_name,
            )
        ],
        prepare=graph.prepare,
        tasks=[consumer.run],
    )
