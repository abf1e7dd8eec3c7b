"""The project service as it runs, beside a pipeline service that has something to do for its tokens."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from penstock.api.pipeline.v1.pipeline_service_pb2_grpc import PipelineServiceStub
from penstock.api.project.v1 import project_service_pb2 as pb
from penstock.api.project.v1.project_service_pb2_grpc import ProjectServiceStub
from penstock.backing.stack import Stack
from services.pipeline.service import build as build_pipeline
from tests.support.hosts import World, own_stack, world_of

ADMIN, EDITOR, VIEWER = pb.ROLE_ADMIN, pb.ROLE_EDITOR, pb.ROLE_VIEWER


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with own_stack(tmp_path_factory.mktemp("project")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(servers: Stack) -> AsyncIterator[World]:
    # In the servers' own home, so that the service finds the keys that sign NATS users.
    async with world_of(servers, servers.home, {"pipeline": build_pipeline}) as running:
        yield running


class Api:
    """A client of the project service."""

    def __init__(self, world: World, project: str, token: str) -> None:
        self.world = world
        self.project = project
        self.parent = f"projects/{project}"
        self.api = world.stub(ProjectServiceStub, "project", token)

    async def token(self, subject: str, role: Any = EDITOR, **seconds: int) -> pb.Token:
        spec = pb.Token(subject=subject, role=role)
        if seconds:
            spec.ttl.CopyFrom(Duration(seconds=seconds["ttl"]))
        made: pb.Token = await self.api.CreateToken(pb.CreateTokenRequest(parent=self.parent, token=spec))
        return made

    async def member(self, name: str, role: Any) -> pb.Member:
        member = pb.Member(name=f"{self.parent}/members/{name}", role=role)
        made: pb.Member = await self.api.UpdateMember(pb.UpdateMemberRequest(member=member, allow_missing=True))
        return made

    async def tokens(self) -> dict[str, pb.Token]:
        found = await self.api.ListTokens(pb.ListTokensRequest(parent=self.parent))
        return {token.name: token for token in found.tokens}

    async def audit(self, **more: Any) -> list[pb.AuditEntry]:
        request = pb.ListAuditEntriesRequest(parent=self.parent, page_size=1000, **more)
        return list((await self.api.ListAuditEntries(request)).audit_entries)

    def pipelines(self, token: str) -> Any:
        return self.world.stub(PipelineServiceStub, "pipeline", token)


@pytest_asyncio.fixture(loop_scope="module")
async def api(world: World) -> Api:
    """An admin of a new project."""
    project = "p" + secrets.token_hex(4)
    home = Api(world, project, world.home_token())
    await home.api.CreateProject(pb.CreateProjectRequest(project_id=project))
    return Api(world, project, world.mint(project, "admin", "root"))
