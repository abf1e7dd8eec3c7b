"""The service as the platform runs it: built from a context, its events on NATS."""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceStub
from penstock.backing.stack import Stack
from penstock.events import Consumer, Event
from services.training.service import build
from tests.support.service_host import client, import_rows, running_host

PARENT = "projects/default"


async def test_a_runs_events_come_in_order_and_continue_its_chain(stack: Stack, home: Path) -> None:
    seen: list[Event] = []
    ended = asyncio.Event()

    async def note(event: Event) -> None:
        seen.append(event)
        if event.type == "training.run.succeeded":
            ended.set()

    async with running_host(stack, home, {"training": build}) as host:
        context = host.contexts["training"]
        consuming = asyncio.create_task(
            Consumer(context.bus, context.database(), "training-test", ["training.run"], note).run()
        )
        stub = client(host, TrainingServiceStub, "training")
        rows = [{"id": f"k{n}", "x": float(n), "kind": "big" if n > 20 else "small"} for n in range(40)]
        version = await import_rows(host, "shapes", rows, label="kind")
        run = pb.Run(dataset_version=version, code=pb.Code(algorithm="logistic-regression"), model="shapes")
        made = await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
        async with asyncio.timeout(40):
            await ended.wait()
        shown = await stub.GetRun(pb.GetRunRequest(name=made.name))
        assert shown.state == pb.Run.SUCCEEDED and shown.model_version and shown.sequence == 3
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    assert [event.type.rpartition(".")[2] for event in seen] == ["queued", "started", "succeeded"]
    assert [event.sequence for event in seen] == [1, 2, 3]
    assert len({event.correlation_id for event in seen}) == 1
    assert seen[1].causation_id == seen[2].causation_id == f"{made.name}@1"
