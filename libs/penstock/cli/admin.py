"""`penstock admin …`"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

import click

from penstock.cli.common import Session, connected, enum_name, last_id
from penstock.cli.paging import pages
from penstock.names import SERVICES


@click.group()
def admin() -> None:
    """Projects, tokens, publishers, audit log, dead letters, replay."""


@admin.group()
def project() -> None:
    """Create and list projects."""


@project.command("create")
@click.argument("name")
@connected
def create_project(session: Session, name: str) -> None:
    """Create a project."""
    from penstock.api.project.v1 import project_service_pb2 as pb

    made = session.client.projects.CreateProject(pb.CreateProjectRequest(project_id=name))
    session.show(made, f"created {made.name}")


@project.command("list")
@connected
def list_projects(session: Session) -> None:
    """List projects."""
    from penstock.api.project.v1 import project_service_pb2 as pb

    found = pages(session.client.projects.ListProjects, pb.ListProjectsRequest(page_size=1000), "projects")
    session.show_list(
        found, [("PROJECT", lambda p: last_id(p.name)), ("CREATED", lambda p: p.create_time.ToJsonString())]
    )


@admin.group()
def token() -> None:
    """Create, list and revoke tokens."""


@token.command("create")
@click.option("--subject", required=True, help="Who will use it.")
@click.option("--role", required=True, type=click.Choice(["viewer", "editor", "admin"]))
@click.option("--ttl", default="30d", show_default=True, help="How long it is valid, such as 12h or 30d.")
@connected
def create_token(session: Session, subject: str, role: str, ttl: str) -> None:
    """Create a token for the project (--project). It is printed once."""
    from penstock.api.project.v1 import project_service_pb2 as pb
    from penstock.sdk.documents import parse_duration

    spec = pb.Token(subject=subject, role=pb.Role.Value(f"ROLE_{role.upper()}"), ttl=parse_duration(ttl, "ttl"))
    made = session.client.projects.CreateToken(pb.CreateTokenRequest(parent=session.client.project, token=spec))
    session.note(f"{last_id(made.name)}: valid until {made.expire_time.ToJsonString()}; it is shown only now")
    session.show(made, made.text)


@token.command("list")
@connected
def list_tokens(session: Session) -> None:
    """List the tokens of the project."""
    from penstock.api.project.v1 import project_service_pb2 as pb

    request = pb.ListTokensRequest(parent=session.client.project, page_size=1000)
    session.show_list(
        pages(session.client.projects.ListTokens, request, "tokens"),
        [
            ("TOKEN", lambda t: last_id(t.name)),
            ("SUBJECT", lambda t: t.subject),
            ("ROLE", lambda t: enum_name(t, "role").removeprefix("ROLE_").lower()),
            ("EXPIRES", lambda t: t.expire_time.ToJsonString()),
            ("REVOKED", lambda t: t.revoke_time.ToJsonString() if t.HasField("revoke_time") else ""),
        ],
    )


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@connected
def revoke_token(session: Session, token_id: str) -> None:
    """Revoke a token; it is refused everywhere within 5 seconds."""
    from penstock.api.project.v1 import project_service_pb2 as pb

    done = session.client.projects.RevokeToken(pb.RevokeTokenRequest(name=session.client.name("token", token_id)))
    session.show(done, f"revoked {token_id}")


@admin.group()
def publisher() -> None:
    """NATS users that may publish events of their own, and nothing else."""


def _private(path: Path) -> TextIO:
    """A file that nobody else may read, opened to be written."""
    try:
        file = open(path, "a", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
        os.fchmod(file.fileno(), 0o600)
    except OSError as error:
        raise click.BadParameter(f"cannot write {path}: {error.strerror}", param_hint="--to") from error
    return file


@publisher.command("create")
@click.argument("name")
@click.option("--ttl", default="30d", show_default=True)
@click.option("--to", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write the credentials here.")
@connected
def create_publisher(session: Session, name: str, ttl: str, target: Path | None) -> None:
    """Mint NATS credentials; they are shown once."""
    from penstock.api.project.v1 import project_service_pb2 as pb
    from penstock.sdk.documents import parse_duration

    spec = pb.Publisher(ttl=parse_duration(ttl, "ttl"))
    request = pb.CreatePublisherRequest(parent=session.client.project, publisher_id=name, publisher=spec)
    # Opened first: credentials that were made and cannot be written would be lost.
    with _private(target) if target else nullcontext() as file:
        made = session.client.projects.CreatePublisher(request)
        if file is not None:
            file.truncate(0)
            file.write(made.credentials)
    session.show(made, f"publish to {made.url}" + (f" with {target}" if target else f"\n{made.credentials}"))


@admin.command()
@click.option("--subject", default="", help="Only this one's.")
@click.option("--limit", default=100, type=click.IntRange(1), show_default=True)
@connected
def audit(session: Session, subject: str, limit: int) -> None:
    """Who did what in the project, newest first."""
    from penstock.api.project.v1 import project_service_pb2 as pb

    request = pb.ListAuditEntriesRequest(parent=session.client.project, page_size=min(limit, 1000), subject=subject)
    session.show_list(
        pages(session.client.projects.ListAuditEntries, request, "audit_entries", limit),
        [
            ("TIME", lambda a: a.time.ToJsonString()),
            ("SUBJECT", lambda a: a.subject),
            ("ON BEHALF OF", lambda a: a.on_behalf_of),
            ("METHOD", lambda a: a.method.rsplit("/", 1)[-1]),
            ("RESOURCE", lambda a: a.resource),
            ("OUTCOME", lambda a: a.outcome),
        ],
    )


@admin.group("dead-letters")
def dead_letters() -> None:
    """Events that a service could not handle."""


_COLUMNS: list[tuple[str, Any]] = [
    ("ID", lambda d: d.id),
    ("SERVICE", lambda d: d.service),
    ("CONSUMER", lambda d: d.consumer),
    ("EVENT", lambda d: d.event.id),
    ("ATTEMPTS", lambda d: d.attempts),
    ("ERROR", lambda d: d.error),
]


@dead_letters.command("list")
@click.option("--service", default="", help="Only of this service.")
@connected
def list_dead_letters(session: Session, service: str) -> None:
    """List them."""
    from penstock.api.event.v1 import event_service_pb2 as pb

    found: list[pb.DeadLetter] = []
    for name in [service] if service else SERVICES:
        request = pb.ListDeadLettersRequest(service=name, page_size=1000)
        found += pages(session.client.event_logs.ListDeadLetters, request, "dead_letters")
    session.show_list(found, _COLUMNS)


@dead_letters.command("retry")
@click.argument("service")
@click.argument("letter", metavar="ID")
@connected
def retry_dead_letter(session: Session, service: str, letter: str) -> None:
    """Try one again; its resource goes on if that works."""
    from penstock.api.event.v1 import event_service_pb2 as pb

    done = session.client.event_logs.RetryDeadLetter(pb.RetryDeadLetterRequest(service=service, id=letter))
    session.show(done, f"retried {letter}")


@dead_letters.command("drop")
@click.argument("service")
@click.argument("letter", metavar="ID")
@connected
def drop_dead_letter(session: Session, service: str, letter: str) -> None:
    """Give one up; its resource goes on without it."""
    from penstock.api.event.v1 import event_service_pb2 as pb

    done = session.client.event_logs.DropDeadLetter(pb.DropDeadLetterRequest(service=service, id=letter))
    session.show(done, f"dropped {letter}")


@admin.command()
@click.option("--service", "services", multiple=True, type=click.Choice(SERVICES), help="Only these; all by default.")
@connected
def replay(session: Session, services: tuple[str, ...]) -> None:
    """Rebuild the projections (lineage) from the stored events; fires no pipeline."""
    from penstock.api.event.v1 import event_service_pb2 as pb
    from penstock.api.lineage.v1 import lineage_service_pb2

    if not services:
        session.client.lineage.ResetGraph(lineage_service_pb2.ResetGraphRequest())
    total = 0
    for name in services or SERVICES:
        total += session.client.event_logs.ReplayEvents(pb.ReplayEventsRequest(service=name), timeout=600).events
        session.note(f"{name}: done, {total} events so far")
    if session.json:
        session.show_json({"events": total})
