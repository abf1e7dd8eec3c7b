"""Services as the platform runs them, in one process: a host with real servers and the fake dataset service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.api.dataset.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from penstock.backing.stack import Stack
from penstock.jobs.local import LocalExecutor
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.server import Registration
from penstock.runtime.host import Host
from penstock.runtime.service import Build, Context, Service
from penstock.runtime.settings import Settings
from services.project.service import build as build_project
from tests.support import fake_dataset_service
from tests.support.fake_dataset_service import FakeDatasetService


@contextlib.asynccontextmanager
async def running_host(
    stack: Stack, home: Path, builds: Mapping[str, Build]
) -> AsyncIterator[tuple[Host, FakeDatasetService]]:
    """A host of the project service, the fake dataset service and `builds`; jobs and databases go with it."""
    datasets = FakeDatasetService(ObjectStore.open((home / "objects").as_uri()))  # type: ignore[abstract]

    def build_datasets(context: Context) -> Service:
        add = Registration(add_DatasetServiceServicer_to_server, datasets, fake_dataset_service.SERVICE)
        return Service("dataset", [add])

    chosen = {"project": build_project, "dataset": build_datasets, **builds}
    for name in chosen:
        stack.service_credentials(name)
    settings = replace(
        Settings.from_environ({}, home=home),
        mongodb_uri=stack.mongodb_uri,
        nats_url=stack.nats_url,
        nats_credentials=stack.home / "nats" / "users",
    )
    host = Host(settings, chosen)
    async with host:
        try:
            yield host, datasets
        finally:
            await LocalExecutor(home / "jobs", settings.objects_url).shutdown()
            for context in host.contexts.values():
                await context.database().drop()


def client(host: Host, stub: Any, service: str) -> Any:
    """A stub of the home's user."""
    token = (host.settings.home / "token").read_text().strip()
    return Channels({service: host.address}, lambda _: token).stub(stub, service)
