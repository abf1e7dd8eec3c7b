"""A running training service with everything real around it but the dataset service (see fake_dataset_service).

One process, as a test needs it: an instance can be stopped as if it were killed, and another started over the same
database, objects and job folder, or two run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.api.dataset.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.api.training.v1.training_service_pb2_grpc import (
    TrainingServiceStub,
    add_TrainingServiceServicer_to_server,
)
from penstock.jobs.local import LocalExecutor
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import Registration, Server
from penstock.rpc.tokens import ServiceTokens, Tokens
from penstock.store import Database
from services.training.jobs import job_id
from services.training.service import Training, assemble
from services.training.validation import Limits
from tests.support import fake_dataset_service
from tests.support.fake_dataset_service import FakeDatasetService

PROJECT = "vision"
PARENT = f"projects/{PROJECT}"
SERVICE = "penstock.api.training.v1.TrainingService"
FINAL = (pb.Run.SUCCEEDED, pb.Run.FAILED, pb.Run.CANCELLED)


async def nothing_denied() -> set[str]:
    """No token was revoked."""
    return set()


@dataclass
class Instance:
    """One process of the service, so to speak: its parts, its server, and its reconciler's task."""

    training: Training
    server: Server
    task: asyncio.Task[None]

    async def kill(self) -> None:
        """Stop without finishing anything."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.server.stop(0)


@dataclass
class TrainingPlatform:
    """What outlives an instance, and the clients of it."""

    root: Path
    database: Database
    objects: ObjectStore
    executor: LocalExecutor
    tokens: Tokens
    datasets: FakeDatasetService = field(init=False)
    cores: float = 4.0
    addresses: dict[str, str] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    _closing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @classmethod
    async def open(cls, root: Path, mongodb_uri: str) -> TrainingPlatform:
        """Everything but an instance of the service."""
        url = (root / "objects").as_uri()
        database = Database.connect(mongodb_uri, f"training_{secrets.token_hex(4)}")
        executor = LocalExecutor(root / "jobs", url, preload="", idle=5)
        platform = cls(root, database, ObjectStore.open(url), executor, Tokens(Keys.generate()))
        platform.datasets = FakeDatasetService(platform.objects)  # type: ignore[abstract]
        registration = Registration(
            add_DatasetServiceServicer_to_server, platform.datasets, fake_dataset_service.SERVICE
        )
        server = platform.server(registration)
        platform.addresses["dataset"] = await server.start()
        platform._closing.push_async_callback(server.stop, 0)
        return platform

    def server(self, *registrations: Registration) -> Server:
        """A server on a free port."""
        return Server("127.0.0.1:0", registrations, self.tokens, Denylist(nothing_denied))

    async def start(self, *, reconcile: bool = True) -> Instance:
        """Start an instance of the service; stubs made from now on call it."""
        channels = Channels(self.addresses, ServiceTokens(self.tokens, "service:training"))
        self._closing.push_async_callback(channels.close)
        training = assemble(
            self.database,
            self.objects,
            self.executor,
            channels,
            self.tokens,
            address=lambda: server.address,
            limits=Limits(self.cores, local_code=True, memory=1 << 40),
        )
        await training.repository.prepare()
        server = self.server(Registration(add_TrainingServiceServicer_to_server, training.servicer, SERVICE))
        self.addresses["training"] = await server.start()
        instance = Instance(training, server, asyncio.create_task(_work(training) if reconcile else _idle()))
        self.instances.append(instance)
        return instance

    def stub(self, role: str = "editor", project: str = PROJECT, **more: Any) -> Any:
        """A client of the newest instance."""
        return self.stub_with(self.tokens.mint("mo", project, role, 600, **more))

    def stub_with(self, token: str) -> Any:
        """A client of the newest instance with that token."""
        channels = Channels(dict(self.addresses), lambda _: token)
        self._closing.push_async_callback(channels.close)
        return channels.stub(TrainingServiceStub, "training")

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call that, too, at the end."""
        self._closing.push_async_callback(close)

    async def close(self) -> None:
        """End everything, jobs too."""
        for instance in self.instances:
            await instance.kill()
        await self.executor.shutdown()
        await self._closing.aclose()
        await self.database.drop()
        await self.database.close()

    def code(self, script: str, name: str = "", files: dict[str, bytes] | None = None) -> pb.Code:
        """A Git repository on this machine with `train.sh` (run as `sh train.sh`) and other files beside it."""
        folder = self.root / (name or f"repository-{secrets.token_hex(3)}")
        make_repository(folder, {"train.sh": script.encode(), **(files or {})})
        return pb.Code(git=pb.GitSource(url=str(folder)))

    async def submit(self, stub: Any, version: str, script: str, **more: Any) -> str:
        """Queue a run of a script; gives its name."""
        run = pb.Run(dataset_version=version, code=self.code(script), command=["sh", "train.sh"], **more)
        made: pb.Run = await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
        return made.name

    async def submit_built_in(self, stub: Any, version: str, **more: Any) -> str:
        """Queue a run of a built-in algorithm; gives its name."""
        run = pb.Run(dataset_version=version, code=pb.Code(algorithm="logistic-regression"), **more)
        made: pb.Run = await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
        return made.name

    def shim(self, run: str, attempt: int = 1) -> int:
        """The recorded process of an attempt that was started."""
        record = self.root / "jobs" / job_id(run) / str(attempt) / "start.json"
        return int(json.loads(record.read_text())["pid"])

    async def events(self, instance: Instance, resource: str) -> list[str]:
        """The types of all events of a run or a model, from its outbox (no relay runs here)."""
        training = instance.training.repository
        kept = training.models if "/models/" in resource else training.runs
        found = await self.database.collection(kept.name).find_one({"_id": resource})
        return [json.loads(entry)["type"] for entry in found["outbox"]] if found else []


async def _work(training: Training) -> None:
    await asyncio.gather(training.reconciler.run(), training.leftovers.run())


async def _idle() -> None:
    await asyncio.Event().wait()


def make_repository(path: Path, files: dict[str, bytes]) -> Path:
    """A Git repository with one commit."""
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=path, check=True)
    return path


async def wait_for(stub: Any, name: str, *states: int, timeout: float = 30.0) -> pb.Run:
    """The run once it is in one of the states; fails the test if it ends in another or takes too long."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        run: pb.Run = await stub.GetRun(pb.GetRunRequest(name=name))
        if run.state in (states or FINAL):
            return run
        if run.state in FINAL:
            break
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} is {pb.Run.State.Name(run.state)}: {run.reason}")


async def collect(stream: AsyncIterator[Any]) -> list[Any]:
    """All messages of a stream."""
    return [message async for message in stream]
