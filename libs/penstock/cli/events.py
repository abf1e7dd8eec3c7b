"""`penstock events …`"""

from __future__ import annotations

import json

import click

from penstock.cli.common import Session, connected, to_dict
from penstock.cli.files import parse_json
from penstock.errors import InvalidArgument, Unavailable


@click.group()
def events() -> None:
    """Follow and publish events."""


@events.command()
@click.option("--type", "type_", default="", help="Only this type, or types that begin with it.")
@connected
def tail(session: Session, type_: str) -> None:
    """Follow the events of the project as they happen; ctrl-C ends it."""
    from penstock.api.event.v1 import event_service_pb2 as pb
    from penstock.api.event.v1 import events_pb2
    from penstock.sdk.following import follow

    request = pb.WatchEventsRequest(parent=session.client.project, type=type_)
    try:
        event: events_pb2.Event
        for event in follow(lambda: session.client.events.WatchEvents(request), is_there=session.is_there):
            if session.json:
                click.echo(json.dumps(to_dict(event), ensure_ascii=False))
            else:
                short: str = event.type.removeprefix("dev.penstock.").removesuffix(".v1")
                click.echo(f"{event.time.ToJsonString()}  {short:32}  {event.id}")
    except KeyboardInterrupt:
        return
    raise Unavailable("The platform ended the stream; start again to go on.")


@events.command()
@click.argument("type_", metavar="TYPE")
@click.option("--data", required=True, metavar="JSON", help="The event's body, a JSON object.")
@click.option("--subject", default="", help="What it is about.")
@click.option("--source", default="", help="Where it comes from; the project's external source by default.")
@click.option("--id", "id_", default="", help="Its id; the same (source, id) again is the same event.")
@connected
def publish(session: Session, type_: str, data: str, subject: str, source: str, id_: str) -> None:
    """Publish an event of your own."""
    from penstock.api.event.v1 import event_service_pb2, events_pb2
    from penstock.rpc.structs import to_struct

    body = parse_json(data, "--data", "data")
    if not isinstance(body, dict):
        raise InvalidArgument("--data must be a JSON object.", field="data")
    event = events_pb2.Event(type=type_, data=to_struct(body), subject=subject, source=source, id=id_)
    done = session.client.events.PublishEvent(
        event_service_pb2.PublishEventRequest(parent=session.client.project, event=event)
    )
    session.show(done, f"published {done.id}")
