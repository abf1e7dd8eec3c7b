"""The wiring of the pipeline service."""

from __future__ import annotations

from penstock.api.event.v1 import event_service_pb2
from penstock.api.event.v1.event_service_pb2_grpc import add_EventServiceServicer_to_server
from penstock.api.pipeline.v1 import pipeline_service_pb2
from penstock.api.pipeline.v1.pipeline_service_pb2_grpc import add_PipelineServiceServicer_to_server
from penstock.events import Relay
from penstock.events.freshness import Freshness
from penstock.rpc.server import Registration
from penstock.runtime.service import Context, Service
from services.pipeline import consumers
from services.pipeline.actions import actions
from services.pipeline.commands import Pipelines
from services.pipeline.driver import Driver
from services.pipeline.events_servicer import EventServicer
from services.pipeline.recurrence import Recurrence
from services.pipeline.repository import Repository
from services.pipeline.servicer import PipelineServicer
from services.pipeline.trigger import Triggers
from services.pipeline.windows import Windows


def build(context: Context) -> Service:
    """Build the service."""
    database = context.database()
    repository = Repository(database)
    windows = Windows(repository)
    triggers = Triggers(repository, windows, Recurrence(repository, context.fetch_event))
    driver = Driver(repository, actions(context.channels), windows.begun)
    outside = consumers.outside(context, triggers)
    pipelines = PipelineServicer(Pipelines(repository, windows.begun), Freshness(database, consumers.NAME))
    return Service(
        "pipeline",
        [
            Registration(
                add_PipelineServiceServicer_to_server,
                pipelines,
                pipeline_service_pb2.DESCRIPTOR.services_by_name["PipelineService"].full_name,
            ),
            Registration(
                add_EventServiceServicer_to_server,
                EventServicer(context.bus, outside),
                event_service_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
            ),
        ],
        prepare=repository.prepare,
        tasks=[
            Relay(database, repository.with_outbox(), context.bus).run,
            consumers.own(context, triggers).run,
            outside.run,
            windows.run,
            driver.run,
        ],
    )
