"""A running evaluation service with real jobs, between fakes of the services that it asks."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.algorithms import job
from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub, add_DatasetServiceServicer_to_server
from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb
from penstock.api.evaluation.v1.evaluation_service_pb2_grpc import (
    EvaluationServiceStub,
    add_EvaluationServiceServicer_to_server,
)
from penstock.api.serving.v1 import serving_service_pb2 as serving_pb
from penstock.api.serving.v1.serving_service_pb2_grpc import (
    ServingServiceServicer,
    ServingServiceStub,
    add_ServingServiceServicer_to_server,
)
from penstock.api.training.v1.training_service_pb2_grpc import (
    TrainingServiceStub,
    add_TrainingServiceServicer_to_server,
)
from penstock.errors import NotFound
from penstock.jobs.executor import Executor
from penstock.jobs.leftovers import Leftovers
from penstock.jobs.local import LocalExecutor
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import Registration, Server
from penstock.rpc.tokens import ServiceTokens, Tokens
from penstock.runtime.settings import JobEnvironment
from penstock.store import Database
from services.evaluation.commands import Evaluations
from services.evaluation.jobs import PREFIX
from services.evaluation.peers import Peers
from services.evaluation.reconciler import Reconciler
from services.evaluation.repository import Repository
from services.evaluation.servicer import EvaluationServicer
from tests.support import fake_dataset_service, fake_training_service
from tests.support.fake_dataset_service import FakeDatasetService
from tests.support.fake_training_service import FakeTrainingService

PROJECT = "vision"
PARENT = f"projects/{PROJECT}"
FINAL = (pb.Evaluation.SUCCEEDED, pb.Evaluation.FAILED, pb.Evaluation.CANCELLED)
ROWS = [{"id": f"k{n}", "x": float(n), "kind": "big" if n > 20 else "small"} for n in range(40)]


async def nothing_denied() -> set[str]:
    """No token was revoked."""
    return set()


class FakeEndpoints(ServingServiceServicer):
    """Endpoints that serve what a test says."""

    def __init__(self) -> None:
        self.serves: dict[str, str] = {}

    async def GetEndpoint(self, request: serving_pb.GetEndpointRequest, context: Any) -> serving_pb.Endpoint:
        """The endpoint."""
        if request.name not in self.serves:
            raise NotFound(f"{request.name} does not exist.")
        return serving_pb.Endpoint(name=request.name, model_version=self.serves[request.name])


def train_model(folder: Path, *, wrong: int = 0) -> Path:
    """A classifier of x; `wrong` moves the border between small and big, so that many records are answered wrongly."""
    data = folder / "input" / "train"
    data.mkdir(parents=True)
    rows = [
        {"_key": f"k{n}", "_revision": f"k{n}/1", "x": float(n), "kind": "big" if n > 20 + wrong else "small"}
        for n in range(40)
    ]
    pq.write_table(pa.Table.from_pylist(rows), data / "part-00000.parquet")
    (data / "input.json").write_text(json.dumps({"label": "kind"}))
    environment = JobEnvironment(folder / "input", folder / "output", None, None, None, threads=1)
    assert job.run("logistic-regression", environment) == job.OK
    return folder / "output" / "model"


@dataclass
class Instance:
    """One process of the service, so to speak."""

    repository: Repository
    reconciler: Reconciler
    leftovers: Leftovers
    server: Server
    task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Start the reconciler and the sweep."""
        self.task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        await asyncio.gather(self.reconciler.run(), self.leftovers.run())

    async def kill(self) -> None:
        """Stop without finishing anything."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        await self.server.stop(0)


@dataclass
class EvaluationPlatform:
    """What outlives an instance."""

    root: Path
    database: Database
    objects: ObjectStore
    executor: LocalExecutor
    tokens: Tokens = field(default_factory=lambda: Tokens(Keys.generate()))
    endpoints: FakeEndpoints = field(default_factory=lambda: FakeEndpoints())  # type: ignore[abstract]
    addresses: dict[str, str] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    _channels: list[Channels] = field(default_factory=list)
    _server: Server | None = None

    @classmethod
    async def open(cls, root: Path, mongodb_uri: str) -> EvaluationPlatform:
        """Everything but an instance of the service."""
        url = (root / "objects").as_uri()
        executor = LocalExecutor(root / "jobs", url, idle=20)
        database = Database.connect(mongodb_uri, f"evaluation_{secrets.token_hex(4)}")
        platform = cls(root, database, ObjectStore.open(url), executor)
        await executor.prepare()
        platform.datasets = FakeDatasetService(platform.objects)  # type: ignore[abstract]
        platform.training = FakeTrainingService(platform.objects)  # type: ignore[abstract]
        platform._server = Server("127.0.0.1:0", platform._fakes(), platform.tokens, Denylist(nothing_denied))
        address = await platform._server.start()
        platform.addresses.update(dict.fromkeys(("dataset", "training", "serving"), address))
        return platform

    datasets: FakeDatasetService = field(init=False)
    training: FakeTrainingService = field(init=False)

    def _fakes(self) -> list[Registration]:
        return [
            Registration(add_DatasetServiceServicer_to_server, self.datasets, fake_dataset_service.SERVICE),
            Registration(add_TrainingServiceServicer_to_server, self.training, fake_training_service.SERVICE),
            Registration(
                add_ServingServiceServicer_to_server, self.endpoints, "penstock.api.serving.v1.ServingService"
            ),
        ]

    async def start(self, executor: Executor | None = None, *, run: bool = True) -> Instance:
        """Start an instance; stubs made from now on call it."""
        channels = Channels(self.addresses, ServiceTokens(self.tokens, "service:evaluation"))
        self._channels.append(channels)
        repository = Repository(self.database)
        await repository.prepare()
        peers = Peers(
            channels.stub(DatasetServiceStub, "dataset"),
            channels.stub(TrainingServiceStub, "training"),
            channels.stub(ServingServiceStub, "serving"),
        )
        evaluations = Evaluations(repository, peers, asyncio.Event())
        reconciler = Reconciler(repository, evaluations, executor or self.executor, self.objects)
        registration = Registration(
            add_EvaluationServiceServicer_to_server,
            EvaluationServicer(evaluations, self.objects),
            "penstock.api.evaluation.v1.EvaluationService",
        )
        server = Server("127.0.0.1:0", [registration], self.tokens, Denylist(nothing_denied))
        self.addresses["evaluation"] = await server.start()
        leftovers = Leftovers(executor or self.executor, PREFIX, repository.wanted)
        instance = Instance(repository, reconciler, leftovers, server)
        self.instances.append(instance)
        if run:
            instance.run()
        return instance

    def stub(self, role: str = "editor", project: str = PROJECT, subject: str = "mo") -> Any:
        """A client of the newest instance."""
        token = self.tokens.mint(subject, project, role, 600)
        channels = Channels(dict(self.addresses), lambda _: token)
        self._channels.append(channels)
        return channels.stub(EvaluationServiceStub, "evaluation")

    async def create(self, model: str, dataset: str, request_id: str = "", **more: Any) -> pb.Evaluation:
        """Start an evaluation."""
        spec = pb.Evaluation(model_version=model, dataset_version=dataset, **more)
        request = pb.CreateEvaluationRequest(parent=PARENT, evaluation=spec, request_id=request_id)
        made: pb.Evaluation = await self.stub().CreateEvaluation(request)
        return made

    async def ended(self, name: str, seconds: float = 60) -> pb.Evaluation:
        """The evaluation once it has ended."""
        return await self.until(name, lambda e: e.state in FINAL, seconds)

    async def until(self, name: str, holds: Callable[[pb.Evaluation], bool], seconds: float = 60) -> pb.Evaluation:
        """The evaluation once a condition holds."""
        stub, deadline = self.stub(), time.monotonic() + seconds
        while True:
            found: pb.Evaluation = await stub.GetEvaluation(pb.GetEvaluationRequest(name=name))
            if holds(found):
                return found
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)

    async def events(self, name: str) -> list[dict[str, Any]]:
        """The events of an evaluation, from its outbox (no relay runs here)."""
        found = await self.database.collection("evaluations").find_one({"_id": name})
        return [json.loads(entry) for entry in found["outbox"]] if found else []

    async def close(self) -> None:
        """End everything, jobs too."""
        for instance in self.instances:
            await instance.kill()
        await self.executor.shutdown()
        for channels in self._channels:
            await channels.close()
        if self._server is not None:
            await self._server.stop(0)
        await self.database.drop()
        await self.database.close()
