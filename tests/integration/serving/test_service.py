"""The service as the platform runs it: built from a context, asked by REST through the edge, its events on NATS."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from importlib import resources
from pathlib import Path

import aiohttp
import pytest

from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.api.serving.v1.serving_service_pb2_grpc import ServingServiceStub
from penstock.api.training.v1.training_service_pb2_grpc import add_TrainingServiceServicer_to_server
from penstock.backing.envoy import EnvoyServer
from penstock.backing.ports import free_port
from penstock.backing.process import ManagedProcess
from penstock.backing.stack import Stack
from penstock.backing.triton import sweep
from penstock.backing.triton_environment import TritonEnvironment
from penstock.edge import Edge
from penstock.errors import Conflict
from penstock.events import Consumer, Event
from penstock.rpc.keys import Keys
from penstock.rpc.server import Registration
from penstock.runtime.service import Build, Context, Service
from services.serving.service import build
from tests.support import fake_training_service
from tests.support.fake_training_service import FakeTrainingService
from tests.support.served_models import scaling_model
from tests.support.service_host import client, running_host

ENDPOINT = "projects/default/endpoints/scale"


def built(training: list[FakeTrainingService], environment: TritonEnvironment) -> dict[str, Build]:
    """The service, and a training service for it."""

    def build_training(context: Context) -> Service:
        training.append(FakeTrainingService(context.objects))  # type: ignore[abstract]
        registration = Registration(add_TrainingServiceServicer_to_server, training[0], fake_training_service.SERVICE)
        return Service("training", [registration])

    def build_serving(context: Context) -> Service:
        settings = replace(context.settings, data_dir=environment.folder.parent)
        return build(replace(context, settings=settings))

    return {"training": build_training, "serving": build_serving}


async def start_envoy(home: Path, port: int, services: str) -> EnvoyServer:
    """An edge for services that all listen at one address."""
    edge, admin = Edge(home / "envoy"), free_port()
    edge.write_base(
        port=port,
        admin_port=admin,
        jwks=Keys.open(home / "keys").jwks(),
        services=dict.fromkeys(("project", "serving"), services),
        descriptor_set=resources.files("penstock.api").joinpath("descriptors.binpb").read_bytes(),
    )
    envoy = EnvoyServer(home, edge.arguments(1), port, admin)
    await envoy.start(attached=True)
    return envoy


async def test_a_deployment_by_rest_serves_and_tells_it_on_nats(
    stack: Stack, home: Path, triton_environment: TritonEnvironment
) -> None:
    seen: list[Event] = []
    ready = asyncio.Event()

    async def note(event: Event) -> None:
        seen.append(event)
        if event.type == "serving.revision.ready":
            ready.set()

    port, training = free_port(), []  # type: ignore[var-annotated]
    (home / "url").write_text(f"http://127.0.0.1:{port}\n")
    async with running_host(stack, home, built(training, triton_environment)) as host:
        envoy = await start_envoy(home, port, host.address)
        version = training[0].add("default", "scale", scaling_model(home / "made", 2.0))
        context = host.contexts["serving"]
        consumer = Consumer(context.bus, context.database(), "serving-test", ["serving.endpoint"], note)
        consuming = asyncio.create_task(consumer.run())
        headers = {"authorization": f"Bearer {(home / 'token').read_text().strip()}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
            async with session.post(f"/v1/{ENDPOINT}:deploy", json={"modelVersion": version}) as answer:
                assert answer.status == 200, await answer.text()
            async with asyncio.timeout(60):
                await ready.wait()
            async with session.get(f"/v1/{ENDPOINT}") as answer:
                shown = await answer.json()
        stub = client(host, ServingServiceStub, "serving")
        found = await stub.GetEndpoint(pb.GetEndpointRequest(name=ENDPOINT))
        with pytest.raises(Conflict, match="changed since you read it"):
            await stub.DeleteEndpoint(pb.DeleteEndpointRequest(name=ENDPOINT, etag="0"))
        assert (await stub.GetEndpoint(pb.GetEndpointRequest(name=ENDPOINT))).state == pb.Endpoint.READY
        await stub.DeleteEndpoint(pb.DeleteEndpointRequest(name=ENDPOINT, etag=found.etag))
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    await envoy.stop(grace=1)
    for path in (home / "run").glob("triton-*.json"):
        process = ManagedProcess.recorded(home, path.stem)
        assert process is not None
        await asyncio.to_thread(process.stop, 0)
        sweep(process)
    assert shown["state"] == "READY" and shown["modelVersion"] == version
    assert found.revision == f"{ENDPOINT}/revisions/1"
    assert [event.type for event in seen] == ["serving.traffic.changed", "serving.revision.ready"]
    assert [event.sequence for event in seen] == [1, 2] and len({event.correlation_id for event in seen}) == 1
    assert seen[1].data == {"endpoint": ENDPOINT, "revision": found.revision, "modelVersion": version}
