"""The API of events for programs outside: publish their own, follow a project's."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from penstock import names
from penstock.api.event.v1 import event_service_pb2 as pb
from penstock.api.event.v1.event_service_pb2_grpc import EventServiceServicer
from penstock.api.event.v1.events_pb2 import Event as EventMessage
from penstock.errors import InvalidArgument
from penstock.events import Bus, Event, ExternalIntake, tail
from penstock.rpc.structs import from_struct
from penstock.store import now


class EventServicer(EventServiceServicer):
    """Publish and follow."""

    def __init__(self, bus: Bus, intake: ExternalIntake) -> None:
        self._bus = bus
        self._intake = intake

    async def PublishEvent(self, request: pb.PublishEventRequest, context: Any) -> EventMessage:
        project = names.parse(request.parent, kind="project", field="parent").project
        asked = request.event
        event = Event(
            id=asked.id or str(uuid.uuid4()),
            type=asked.type,
            source=asked.source or f"//penstock/projects/{project}/external",
            subject=asked.subject,
            sequence=0,
            time=_time(asked),
            data=from_struct(asked.data),
            correlation_id=asked.correlation_id,
            causation_id=asked.causation_id,
            traceparent=asked.traceparent,
            project=project,
        )
        return (await self._intake.publish(event)).to_proto()

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> AsyncIterator[EventMessage]:
        project = names.parse(request.parent, kind="project", field="parent").project
        began = now()  # before the client is told that the stream is on: what it then publishes must not be missed
        await context.send_initial_metadata(())
        async with aclosing(tail(self._bus, [request.type] if request.type else [], project, began)) as events:
            async for event in events:
                yield event.to_proto()


def _time(event: EventMessage) -> datetime:
    try:
        return event.time.ToDatetime(UTC) if event.HasField("time") else now()
    except (OverflowError, ValueError):
        raise InvalidArgument("This is no time of the years 1 to 9999.", field="event.time") from None
