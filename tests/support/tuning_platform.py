"""A running tuning service over a running training service; see training_platform."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.tuning.v1 import tuning_service_pb2 as pb
from penstock.api.tuning.v1.tuning_service_pb2_grpc import TuningServiceStub, add_TuningServiceServicer_to_server
from penstock.rpc.channels import Channels
from penstock.rpc.server import Registration, Server
from penstock.rpc.structs import to_value
from penstock.rpc.tokens import ServiceTokens
from penstock.store import Database
from services.tuning.service import SERVICE, Tuning, assemble
from tests.support.sample_model import model_files
from tests.support.training_platform import PARENT, TrainingPlatform

FINAL = (pb.Study.SUCCEEDED, pb.Study.FAILED, pb.Study.CANCELLED)
# A job that reports its parameter x as `score`, and leaves a model.
SCORES_X = """
    x=$(sed 's/.*"x": *\\([-0-9.e]*\\).*/\\1/' "$PENSTOCK_PARAMS")
    echo "{\\"name\\": \\"score\\", \\"value\\": $x}" >> "$PENSTOCK_METRICS"
    mkdir "$PENSTOCK_OUTPUT_DIR/model"; cp model.* "$PENSTOCK_OUTPUT_DIR/model"
"""


@dataclass
class TuningPlatform:
    """What outlives an instance of the two services, and the clients of tuning."""

    training: TrainingPlatform
    mongodb_uri: str
    database: Database = field(init=False)
    tuning: Tuning = field(init=False)
    _running: list[tuple[Server, asyncio.Task[None], Channels]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = Database.connect(self.mongodb_uri, f"tuning_{secrets.token_hex(4)}")

    async def start(self, *, reconcile: bool = True) -> None:
        """Start an instance of both services."""
        await self.training.start()
        channels = Channels(self.training.addresses, ServiceTokens(self.training.tokens, "service:tuning"))
        self.tuning = assemble(self.database, channels)
        await self.tuning.repository.prepare()
        server = self.training.server(Registration(add_TuningServiceServicer_to_server, self.tuning.servicer, SERVICE))
        self.training.addresses["tuning"] = await server.start()
        task = asyncio.create_task(self.tuning.reconciler.run() if reconcile else _idle())
        self._running.append((server, task, channels))

    async def kill(self) -> None:
        """Stop both without finishing anything."""
        for server, task, channels in self._running:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await server.stop(0)
            await channels.close()
        self._running.clear()
        for instance in self.training.instances:
            await instance.kill()
        self.training.instances.clear()

    async def close(self) -> None:
        """End it."""
        await self.kill()
        await self.database.drop()
        await self.database.close()

    def stub(self) -> Any:
        """A client of the newest instance."""
        token = self.training.tokens.mint("mo", "vision", "editor", 600)
        channels = Channels(dict(self.training.addresses), lambda _: token)
        self.training.on_close(channels.close)
        return channels.stub(TuningServiceStub, "tuning")

    def study(self, version: str, script: str = SCORES_X, **more: Any) -> pb.Study:
        """A study over x in 0 … 1 of the script."""
        fields: dict[str, Any] = {
            "dataset_version": version,
            "code": self.training.code(script, files=model_files()),
            "command": ["sh", "train.sh"],
            "space": [pb.ParameterSpace(name="x", float=pb.FloatRange(low=0, high=1))],
            "objective": pb.Objective(metric="score", direction=pb.Objective.MAXIMIZE),
            "max_trials": 4,
            "parallelism": 2,
            "sampler": pb.Sampler(seed=7),
        }
        return pb.Study(**{**fields, **more})

    async def create(self, study: pb.Study, id: str = "") -> str:
        """Start a study; gives its name."""
        request = pb.CreateStudyRequest(parent=PARENT, study_id=id, study=study)
        made: pb.Study = await self.stub().CreateStudy(request)
        return made.name

    async def ended(self, name: str, timeout: float = 60) -> pb.Study:
        """The study once it has ended."""
        async with asyncio.timeout(timeout):
            async for study in self.stub().WatchStudy(pb.WatchStudyRequest(name=name)):
                last: pb.Study = study
        return last

    async def trials(self, name: str) -> list[pb.Trial]:
        """All trials of a study."""
        answer = await self.stub().ListTrials(pb.ListTrialsRequest(parent=name, page_size=1000))
        return list(answer.trials)

    async def events(self, name: str) -> list[dict[str, Any]]:
        """All events of a study, from its outbox (no relay runs here)."""
        found = await self.database.collection("studies").find_one({"_id": name})
        return [json.loads(entry) for entry in found["outbox"]] if found else []

    async def runs(self) -> list[training_pb.Run]:
        """All runs, oldest first."""
        answer = await self.training.stub().ListRuns(training_pb.ListRunsRequest(parent=PARENT, page_size=1000))
        return list(reversed(answer.runs))


def categories(name: str, *values: Any) -> pb.ParameterSpace:
    """A parameter that has one of these values."""
    return pb.ParameterSpace(name=name, categorical=pb.Categories(values=[to_value(value) for value in values]))


async def _idle() -> None:
    await asyncio.Event().wait()
