"""Two services for the tests of a host; run as a module, it is `python -m services` with these two."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from google.protobuf.empty_pb2 import Empty

from penstock.api.project.v1 import project_service_pb2 as project_pb
from penstock.api.project.v1 import project_service_pb2_grpc as project_grpc
from penstock.errors import Unavailable
from penstock.rpc.server import Registration
from penstock.runtime.service import Build, Context, Service
from services import __main__ as entry
from tests.integration.rpc.echo_service import SERVICE, EchoServicer, services

PROJECT = "penstock.api.project.v1.ProjectService"


class Project(project_grpc.ProjectServiceServicer):
    """As much of the project service as every server needs."""

    def __init__(self) -> None:
        self.denied: list[str] = []
        self.entries: list[project_pb.AuditEntry] = []
        self.fails = False

    async def ListDeniedTokens(self, request: Any, context: Any) -> project_pb.ListDeniedTokensResponse:
        return project_pb.ListDeniedTokensResponse(ids=self.denied)

    async def RecordAuditEntries(self, request: Any, context: Any) -> Empty:
        if self.fails:
            raise Unavailable("The audit log is away.")
        self.entries += request.audit_entries
        return Empty()


class World:
    """Two services: `project`, and `training`, which is the echo service and has a task that fails at first."""

    def __init__(self) -> None:
        self.project, self.echo = Project(), EchoServicer()  # type: ignore[abstract]
        self.contexts: dict[str, Context] = {}
        self.runs = 0
        self.closed: list[str] = []

    def build_project(self, context: Context) -> Service:
        registration = Registration(project_grpc.add_ProjectServiceServicer_to_server, self.project, PROJECT)
        return Service("project", [registration], close=self._closing("project"))

    def build_training(self, context: Context) -> Service:
        self.contexts["training"] = context
        registration = Registration(services.add_EchoServiceServicer_to_server, self.echo, SERVICE)
        return Service("training", [registration], tasks=[self._work], close=self._closing("training"))

    def _closing(self, name: str) -> Callable[[], Any]:
        async def close() -> None:
            self.closed.append(name)

        return close

    async def _work(self) -> None:
        self.runs += 1
        if self.runs == 1:
            raise RuntimeError("at first it fails")
        await asyncio.Event().wait()


def main() -> int:
    """What `python -m services` does, with other services."""
    world = World()
    builds: dict[str, Build] = {"project": world.build_project, "training": world.build_training}
    entry.available = lambda: list(builds)
    entry.load = lambda name: builds[name]
    return entry.main()


if __name__ == "__main__":
    sys.exit(main())
