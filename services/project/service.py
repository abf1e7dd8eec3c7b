"""The wiring of the project service."""

from __future__ import annotations

from functools import partial

from penstock.api.project.v1 import project_service_pb2
from penstock.api.project.v1.project_service_pb2_grpc import add_ProjectServiceServicer_to_server
from penstock.edge import Edge
from penstock.events import Relay
from penstock.events.credentials import create_authority
from penstock.rpc.server import Registration
from penstock.runtime.service import Context, Service
from services.project.commands import Projects
from services.project.repository import Repository
from services.project.servicer import ProjectServicer
from services.project.tokens import TokenCommands
from services.project.vault import Vault


def build(context: Context) -> Service:
    """Build the service."""
    database = context.database()
    repository = Repository(database)
    authority_folder = context.home / "nats" / "authority"
    authority = create_authority(authority_folder) if authority_folder.exists() else None
    vault = Vault(context.home / "project" / "secrets.key")
    projects = Projects(repository, vault, authority, context.settings.nats_url)
    tokens = TokenCommands(repository, context.tokens)

    async def prepare() -> None:
        await repository.prepare()
        await projects.ensure(context.settings.project)

    return Service(
        "project",
        [
            Registration(
                add_ProjectServiceServicer_to_server,
                ProjectServicer(projects, tokens),
                project_service_pb2.DESCRIPTOR.services_by_name["ProjectService"].full_name,
            )
        ],
        prepare=prepare,
        tasks=[
            Relay(database, repository.with_outbox(), context.bus).run,
            partial(tokens.keep_edge, Edge(context.home / "envoy")),
        ],
    )
