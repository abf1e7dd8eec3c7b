"""`penstock endpoint …` and `penstock predict`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.common import Session, connected, describe, enum_name, last_id, model_version, short, to_dict
from penstock.cli.files import read_json
from penstock.cli.progress import follow_work
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.api.serving.v1 import serving_service_pb2 as pb


@click.command()
@click.argument("endpoint")
@click.option(
    "--from", "source", required=True, type=click.Path(path_type=Path), help="A KServe v2 request body (JSON)."
)
@connected
def predict(session: Session, endpoint: str, source: Path) -> None:
    """Send one KServe v2 request to an endpoint."""
    answer = session.client.endpoint(endpoint).predict(read_json(source))
    if session.json:
        session.show_json({**answer.body, "prediction": answer.name})
        return
    for name, values in answer.outputs.items():
        click.echo(f"{name}: {values}")
    click.echo(f"prediction: {answer.name}")


@click.group()
def endpoint() -> None:
    """Deploy models, roll back, predict."""


endpoint.add_command(predict)


@endpoint.command()
@click.argument("name", metavar="ENDPOINT")
@click.argument("model", metavar="MODEL[@V]")
@click.option("--steps", default="", metavar="10,100", help="Per cent of the traffic at each step.")
@click.option("--hold", default=0.0, help="Seconds for which each step but the last is watched (5).")
@click.option("--request-id", default="", help="The same id again answers the same revision.")
@click.option("--wait", is_flag=True, help="Follow the shift to its end.")
@connected
def deploy(session: Session, name: str, model: str, steps: str, hold: float, request_id: str, wait: bool) -> None:
    """Serve a model version at an endpoint, shifting the traffic step by step."""
    from penstock.api.serving.v1 import serving_service_pb2 as pb
    from penstock.sdk.documents import parse_duration, parse_wholes

    wait_for = parse_duration(hold, "hold")
    request = pb.DeployModelRequest(
        name=session.client.name("endpoint", name),
        model_version=model_version(session, model),
        steps=parse_wholes(steps.split(",") if steps else None, "steps"),
        request_id=request_id,
    )
    if hold:
        request.hold.CopyFrom(wait_for)
    made = session.client.serving.DeployModel(request)
    if not wait:
        session.show(made, f"started revision {made.number}; follow it: penstock endpoint show {name}")
        return
    _finish(session, name, _follow(session, name, made))


def _follow(session: Session, name: str, made: pb.Revision) -> pb.Revision:
    from penstock.api.serving.v1 import serving_service_pb2 as pb

    return follow_work(
        lambda: session.client.serving.WatchRevision(pb.WatchRevisionRequest(name=made.name)),
        lambda r: f"revision {r.number}: {enum_name(r, 'state').lower()}, {r.weight} % of the traffic",
        f"penstock endpoint show {name}",
    )


def _finish(session: Session, name: str, done: pb.Revision) -> None:
    if enum_name(done, "state") != "SERVING":
        if session.json:
            session.show(done)
        raise PenstockError(f"Revision {done.number} {enum_name(done, 'state').lower()}: {done.reason}")
    session.show(done, f"{name} is served by revision {done.number} ({short(done.model_version)})")


@endpoint.command("list")
@connected
def list_endpoints(session: Session) -> None:
    """List endpoints."""
    from penstock.api.serving.v1 import serving_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListEndpointsRequest(parent=session.client.project, page_size=1000)
    session.show_list(
        pages(session.client.serving.ListEndpoints, request, "endpoints"),
        [
            ("ENDPOINT", lambda e: last_id(e.name)),
            ("STATE", lambda e: enum_name(e, "state").lower()),
            ("MODEL", lambda e: short(e.model_version)),
            ("REVISION", lambda e: last_id(e.revision)),
            ("WEIGHTS", lambda e: " ".join(f"{n}:{w}%" for n, w in sorted(e.weights.items()))),
            ("PATH", lambda e: e.path),
        ],
    )


@endpoint.command()
@click.argument("name", metavar="ENDPOINT")
@connected
def show(session: Session, name: str) -> None:
    """Show an endpoint and its revisions."""
    from penstock.api.serving.v1 import serving_service_pb2 as pb
    from penstock.cli.paging import pages

    found = session.client.serving.GetEndpoint(pb.GetEndpointRequest(name=session.client.name("endpoint", name)))
    request = pb.ListRevisionsRequest(parent=found.name, page_size=100)
    revisions = list(pages(session.client.serving.ListRevisions, request, "revisions", 100))
    if session.json:
        session.show_json({**to_dict(found), "revisions": [to_dict(r) for r in revisions]})
        return
    click.echo(describe(to_dict(found)))
    session.show_list(
        revisions,
        [
            ("REVISION", lambda r: r.number),
            ("STATE", lambda r: enum_name(r, "state").lower()),
            ("WEIGHT", lambda r: f"{r.weight} %"),
            ("MODEL", lambda r: short(r.model_version)),
            ("AUTHOR", lambda r: r.author),
            ("REASON", lambda r: r.reason),
        ],
    )


@endpoint.command()
@click.argument("name", metavar="ENDPOINT")
@click.option("--wait", is_flag=True, help="Follow the shift to its end.")
@connected
def rollback(session: Session, name: str, wait: bool) -> None:
    """Shift the traffic back to the model that was served before."""
    from penstock.api.serving.v1 import serving_service_pb2 as pb

    made = session.client.serving.RollbackEndpoint(
        pb.RollbackEndpointRequest(name=session.client.name("endpoint", name))
    )
    if not wait:
        session.show(made, f"rolling back by revision {made.number}; follow it: penstock endpoint show {name}")
        return
    _finish(session, name, _follow(session, name, made))


@endpoint.command()
@click.argument("name", metavar="ENDPOINT")
@connected
def delete(session: Session, name: str) -> None:
    """Take an endpoint down."""
    from penstock.api.serving.v1 import serving_service_pb2 as pb

    request = pb.DeleteEndpointRequest(name=session.client.name("endpoint", name))
    session.client.serving.DeleteEndpoint(request)
    session.show_gone(request.name, f"deleting {name}")
