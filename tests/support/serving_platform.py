"""A running serving service with everything real around it but the training service (see fake_training_service).

An instance of the service can be stopped as if it were killed, and another started over the same database, home and
edge; Envoy and the Tritons stay, as they do in the product.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
from google.protobuf.duration_pb2 import Duration

from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.api.serving.v1.serving_service_pb2_grpc import ServingServiceStub, add_ServingServiceServicer_to_server
from penstock.api.training.v1.training_service_pb2_grpc import add_TrainingServiceServicer_to_server
from penstock.backing.envoy import EnvoyServer
from penstock.backing.ports import free_port
from penstock.backing.process import ManagedProcess
from penstock.backing.triton import sweep
from penstock.backing.triton_environment import TritonEnvironment
from penstock.edge import PREDICTION_HEADER, Edge
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import Registration, Server
from penstock.rpc.tokens import ServiceTokens, Tokens
from penstock.store import Database
from services.serving.service import SERVICE, Serving, assemble
from tests.support import fake_training_service
from tests.support.fake_training_service import FakeTrainingService
from tests.support.prediction_load import Load, until
from tests.support.served_models import scaling_model

PROJECT = "vision"


async def nothing_denied() -> set[str]:
    """No token was revoked."""
    return set()


@dataclass
class Instance:
    """One process of the service, so to speak."""

    serving: Serving
    server: Server
    task: asyncio.Task[None]

    async def kill(self) -> None:
        """Stop without finishing anything."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.server.stop(0)


@dataclass
class ServingPlatform:
    """What outlives an instance, and the clients of it."""

    home: Path
    database: Database
    objects: ObjectStore
    environment: Callable[[], TritonEnvironment]
    tokens: Tokens = field(default_factory=lambda: Tokens(Keys.generate()))
    addresses: dict[str, str] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    training: FakeTrainingService = field(init=False)
    envoy: EnvoyServer = field(init=False)
    _models: int = 0
    _stubs: dict[tuple[str, str, bool, str], Any] = field(default_factory=dict)
    _users: dict[str, str] = field(default_factory=dict)
    _closing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @classmethod
    async def open(cls, home: Path, mongodb_uri: str, environment: TritonEnvironment) -> ServingPlatform:
        """Everything but an instance of the service."""
        database = Database.connect(mongodb_uri, f"serving_{secrets.token_hex(4)}")
        platform = cls(home, database, ObjectStore.open((home / "objects").as_uri()), lambda: environment)
        platform.training = FakeTrainingService(platform.objects)  # type: ignore[abstract]
        registration = Registration(
            add_TrainingServiceServicer_to_server, platform.training, fake_training_service.SERVICE
        )
        server = platform.server(registration)
        platform.addresses["training"] = await server.start()
        platform._closing.push_async_callback(server.stop, 0)
        edge, port, admin = Edge(home / "envoy"), free_port(), free_port()
        edge.write_base(
            port=port,
            admin_port=admin,
            jwks=platform.tokens.jwks(),
            services={"serving": "127.0.0.1:1"},
            descriptor_set=resources.files("penstock.api").joinpath("descriptors.binpb").read_bytes(),
            reflection="serving",
        )
        platform.envoy = EnvoyServer(home, edge.arguments(1), port, admin)
        await platform.envoy.start(attached=True)
        return platform

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.envoy.port}"

    def server(self, *registrations: Registration) -> Server:
        """A server on a free port."""
        return Server("127.0.0.1:0", registrations, self.tokens, Denylist(nothing_denied))

    async def start(self) -> Instance:
        """Start an instance of the service; stubs made from now on call it."""
        channels = Channels(self.addresses, ServiceTokens(self.tokens, "service:serving"))
        self._closing.push_async_callback(channels.close)
        serving = assemble(
            self.database,
            self.objects,
            channels,
            self.tokens,
            home=self.home,
            url=self.url,
            environment=lambda: self.environment(),
        )
        await serving.repository.prepare()
        server = self.server(Registration(add_ServingServiceServicer_to_server, serving.servicer, SERVICE))
        self.addresses["serving"] = await server.start()
        instance = Instance(serving, server, asyncio.create_task(serving.reconciler.run()))
        self.instances.append(instance)
        return instance

    def stub(self, role: str = "editor", project: str = PROJECT, platform: bool = False) -> Any:
        """A client of the newest instance."""
        key = (role, project, platform, self.addresses["serving"])
        if key not in self._stubs:
            token = self.tokens.mint("mo", project, role, 600, platform)
            channels = Channels(dict(self.addresses), lambda _: token)
            self._closing.push_async_callback(channels.close)
            self._stubs[key] = channels.stub(ServingServiceStub, "serving")
        return self._stubs[key]

    def model(self, factor: float, project: str = PROJECT, **more: Any) -> str:
        """A version of a model that multiplies by `factor`."""
        self._models += 1
        folder = scaling_model(self.home / "made" / str(self._models), factor, **more)
        return self.training.add(project, "scale", folder)

    async def deploy(
        self, endpoint: str, version: str, *steps: int, hold: float | None = None, stub: Any = None, **more: Any
    ) -> pb.Revision:
        """Ask for a revision."""
        project = version.split("/")[1]
        request = pb.DeployModelRequest(
            name=f"projects/{project}/endpoints/{endpoint}", model_version=version, steps=steps, **more
        )
        if hold is not None:
            request.hold.CopyFrom(Duration(nanos=int(hold * 1e9) % 10**9, seconds=int(hold)))
        made: pb.Revision = await (stub or self.stub(project=project)).DeployModel(request)
        return made

    async def served(self, endpoint: str, version: str, *steps: int, **more: Any) -> pb.Revision:
        """Deploy, and wait until it serves."""
        made = await self.deploy(endpoint, version, *steps, **more)
        return await self.wait_for(made.name)

    async def wait_for(self, revision: str, state: int = pb.Revision.SERVING, timeout: float = 90.0) -> pb.Revision:
        """The revision once it is in that state; fails the test if it ends in another."""
        final = (pb.Revision.REMOVED, pb.Revision.FAILED, *((state,) if state == pb.Revision.SERVING else ()))
        found = pb.Revision()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while found.state != state and found.state not in final:
                    found = await self.revision(revision)
                    await asyncio.sleep(0.03)
        assert found.state == state, f"{revision} is {pb.Revision.State.Name(found.state)}: {found.reason}"
        return found

    async def revision(self, name: str) -> pb.Revision:
        """A revision as it is now."""
        stub = self.stub(project=name.split("/")[1])
        found: pb.Revision = await stub.GetRevision(pb.GetRevisionRequest(name=name))
        return found

    async def settled(self, endpoint: str) -> None:
        """Wait until nothing is left of revisions that do not serve."""
        await until(lambda: len(self.tritons_of(endpoint)) == 1)

    async def endpoint(self, id: str, project: str = PROJECT) -> pb.Endpoint:
        found: pb.Endpoint = await self.stub(project=project).GetEndpoint(
            pb.GetEndpointRequest(name=f"projects/{project}/endpoints/{id}")
        )
        return found

    async def predict(self, endpoint: str, project: str = PROJECT, x: float = 1.0) -> tuple[int, Any, str]:
        """Status, answer and prediction name of one request."""
        async with aiohttp.ClientSession() as session:
            return await self._predict(session, endpoint, project, x)

    async def _predict(
        self, session: aiohttp.ClientSession, endpoint: str, project: str, x: float
    ) -> tuple[int, Any, str]:
        token = self._users.setdefault(project, self.tokens.mint("user", project, "viewer", 600))
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [x]}
        async with session.post(
            f"{self.url}/v2/models/{endpoint}/infer",
            json={"inputs": [tensor]},
            headers={"authorization": f"Bearer {token}"},
        ) as answer:
            text = await answer.text()
            body = json.loads(text) if text else {}
            return answer.status, body, answer.headers.get(PREDICTION_HEADER, "")

    @contextlib.asynccontextmanager
    async def load(self, endpoint: str, clients: int = 2, pause: float = 0.01, x: float = 1.0) -> AsyncIterator[Load]:
        """Ask without pause within the block."""
        found, running = Load(), True

        async def client(session: aiohttp.ClientSession) -> None:
            while running:
                try:
                    status, body, prediction = await self._predict(session, endpoint, PROJECT, x)
                except aiohttp.ClientError as error:
                    found.failures.append(repr(error))
                    continue
                if status == 200:
                    found.answers[body["outputs"][0]["data"][0] / x, int(prediction.split("/")[5])] += 1
                else:
                    found.failures.append(f"{status} {body}")
                await asyncio.sleep(pause)

        async with aiohttp.ClientSession() as session:
            tasks = [asyncio.create_task(client(session)) for _ in range(clients)]
            try:
                yield found
            finally:
                running = False
                await asyncio.gather(*tasks)

    def tritons(self) -> dict[str, ManagedProcess]:
        """The model servers that run, by name."""
        found = {
            path.stem: ManagedProcess.adopt(self.home, path.stem) for path in (self.home / "run").glob("triton-*.json")
        }
        return {name: process for name, process in found.items() if process is not None}

    def tritons_of(self, endpoint: str, project: str = PROJECT) -> list[str]:
        """The names of an endpoint's model servers, by revision."""
        return sorted(name for name in self.tritons() if name.startswith(f"triton-{project}_{endpoint}_"))

    def kill_triton(self, name: str) -> int:
        """kill -9 of a model server; gives its pid."""
        pid = self.tritons()[name].identity.pid
        os.kill(pid, signal.SIGKILL)
        return pid

    async def events(self, endpoint: str, project: str = PROJECT) -> list[dict[str, Any]]:
        """All events of an endpoint, from its outbox (no relay runs here)."""
        name = f"projects/{project}/endpoints/{endpoint}"
        found = await self.database.collection("endpoints").find_one({"_id": name})
        return [json.loads(entry) for entry in found["outbox"]] if found else []

    async def close(self) -> None:
        """End everything."""
        for instance in self.instances:
            await instance.kill()
        await self._closing.aclose()
        for path in (self.home / "run").glob("triton-*.json"):
            process = ManagedProcess.recorded(self.home, path.stem)
            if process is not None:
                await asyncio.to_thread(process.stop, 0)
                sweep(process)
        await self.envoy.stop(grace=1)
        await self.database.drop()
        await self.database.close()
