"""Services as the platform runs them, in one process: a host with real servers and the real dataset service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub
from penstock.backing.stack import Stack
from penstock.jobs.local import LocalExecutor
from penstock.rpc.channels import Channels
from penstock.runtime.host import Host
from penstock.runtime.service import Build
from penstock.runtime.settings import Settings
from services.dataset.service import build as build_dataset
from services.project.service import build as build_project
from tests.support.dataset_platform import Client


@contextlib.asynccontextmanager
async def running_host(stack: Stack, home: Path, builds: Mapping[str, Build]) -> AsyncIterator[Host]:
    """A host of the project service, the dataset service and `builds`; jobs and databases go with it."""
    chosen = {"project": build_project, "dataset": build_dataset, **builds}
    for name in chosen:
        stack.service_credentials(name)
    settings = replace(
        Settings.from_environ({}, home=home),
        mongodb_uri=stack.mongodb_uri,
        nats_url=stack.nats_url,
        nats_credentials=stack.home / "nats" / "users",
    )
    async with Host(settings, chosen) as host:
        try:
            yield host
        finally:
            await LocalExecutor(home / "jobs", settings.objects_url).shutdown()
            for context in host.contexts.values():
                await context.database().drop()


def client(host: Host, stub: Any, service: str) -> Any:
    """A stub of the home's user."""
    token = (host.settings.home / "token").read_text().strip()
    return Channels({service: host.address}, lambda _: token).stub(stub, service)


async def import_rows(host: Host, dataset: str, rows: Iterable[Mapping[str, Any]], *, label: str) -> str:
    """Make a dataset of rows, keyed by `id`; gives the name of its first version."""
    stub = client(host, DatasetServiceStub, "dataset")
    parent = f"projects/{host.settings.project}"
    fields = pb.Dataset(label_field=label)
    made = await stub.CreateDataset(pb.CreateDatasetRequest(parent=parent, dataset_id=dataset, dataset=fields))
    done = await Client(stub).import_rows(made.name, rows)
    return str(done.version)
