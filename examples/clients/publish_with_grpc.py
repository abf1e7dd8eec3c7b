"""Publishes one event over gRPC with Penstock's client, which finds the platform and the token by itself."""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from penstock.api.event.v1.event_service_pb2 import PublishEventRequest
from penstock.api.event.v1.events_pb2 import Event
from penstock.sdk import Client


def main() -> None:
    """Publish."""
    data = Struct()
    data.update({"dataset": "teas", "tasted": 30})
    with Client() as client:
        event = Event(type="com.example.tasting.done", source="//tasting-room/table-2", data=data)
        done = client.events.PublishEvent(PublishEventRequest(parent=client.project, event=event))
    print(f"published {done.id}")


if __name__ == "__main__":
    main()
