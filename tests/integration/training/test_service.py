"""The service as the platform runs it: built from a context, its events on NATS."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.api.dataset.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceStub
from penstock.backing.stack import Stack
from penstock.events import Consumer, Event
from penstock.jobs.local import LocalExecutor
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.server import Registration
from penstock.runtime.host import Host
from penstock.runtime.service import Context, Service
from penstock.runtime.settings import Settings
from services.project.service import build as build_project
from services.training.service import build
from tests.support import fake_dataset_service
from tests.support.fake_dataset_service import FakeDatasetService

PARENT = "projects/default"


async def test_a_runs_events_come_in_order_and_continue_its_chain(stack: Stack, home: Path) -> None:
    datasets = FakeDatasetService(ObjectStore.open((home / "objects").as_uri()))  # type: ignore[abstract]

    def build_datasets(context: Context) -> Service:
        add = Registration(add_DatasetServiceServicer_to_server, datasets, fake_dataset_service.SERVICE)
        return Service("dataset", [add])

    for name in ("project", "dataset", "training"):
        stack.service_credentials(name)
    settings = replace(
        Settings.from_environ({}, home=home),
        mongodb_uri=stack.mongodb_uri,
        nats_url=stack.nats_url,
        nats_credentials=stack.home / "nats" / "users",
    )
    host = Host(settings, {"project": build_project, "dataset": build_datasets, "training": build})
    seen: list[Event] = []
    ended = asyncio.Event()

    async def note(event: Event) -> None:
        seen.append(event)
        if event.type == "training.run.succeeded":
            ended.set()

    async with host:
        context = host.contexts["training"]
        consumer = Consumer(context.bus, context.database(), "training-test", ["training.run"], note)
        consuming = asyncio.create_task(consumer.run())
        stub = client(host)
        rows = [{"id": f"k{n}", "x": float(n), "kind": "big" if n > 20 else "small"} for n in range(40)]
        version = datasets.add("default", "shapes", rows, label="kind")
        run = pb.Run(dataset_version=version, code=pb.Code(algorithm="logistic-regression"), model="shapes")
        made = await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
        async with asyncio.timeout(40):
            await ended.wait()
        shown = await stub.GetRun(pb.GetRunRequest(name=made.name))
        assert shown.state == pb.Run.SUCCEEDED and shown.model_version and shown.sequence == 3
        await LocalExecutor(home / "jobs", settings.objects_url).shutdown()
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
        await context.database().drop()
        await host.contexts["project"].database().drop()
    assert [event.type.rpartition(".")[2] for event in seen] == ["queued", "started", "succeeded"]
    assert [event.sequence for event in seen] == [1, 2, 3]
    assert len({event.correlation_id for event in seen}) == 1
    assert seen[1].causation_id == seen[2].causation_id == f"{made.name}@1"


def client(host: Host) -> Any:
    """A stub of the home's user."""
    token = (host.settings.home / "token").read_text().strip()
    return Channels({"training": host.address}, lambda _: token).stub(TrainingServiceStub, "training")
