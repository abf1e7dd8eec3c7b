"""Stand-ins for the services that make what a pipeline's steps ask for, behind a real server: they do no work.

Each answers creations (once per request id), watches and cancellations; a test says how the work ends. Tests from end
to end use the real services.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import (
    DatasetServiceServicer,
    add_DatasetServiceServicer_to_server,
)
from penstock.api.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from penstock.api.evaluation.v1.evaluation_service_pb2_grpc import (
    EvaluationServiceServicer,
    add_EvaluationServiceServicer_to_server,
)
from penstock.api.serving.v1 import serving_service_pb2 as serving_pb
from penstock.api.serving.v1.serving_service_pb2_grpc import (
    ServingServiceServicer,
    add_ServingServiceServicer_to_server,
)
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.training.v1.training_service_pb2_grpc import (
    TrainingServiceServicer,
    add_TrainingServiceServicer_to_server,
)
from penstock.api.tuning.v1 import tuning_service_pb2 as tuning_pb
from penstock.api.tuning.v1.tuning_service_pb2_grpc import TuningServiceServicer, add_TuningServiceServicer_to_server
from penstock.errors import NotFound
from penstock.rpc.caller import caller
from penstock.rpc.server import Registration
from penstock.store import Cause, current_cause

PACKAGE = "penstock.api"
ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "SERVING"})


@dataclass(frozen=True)
class Made:
    """A resource that was asked for: by which request, on whose behalf, and why."""

    name: str
    request: Any
    actor: str
    cause: Cause


@dataclass
class Desk:
    """What all fakes share. `ends` says how new work ends at once; None leaves it running until `end`."""

    ends: str | None = "SUCCEEDED"
    made: list[Made] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    calls: int = 0  # creations asked for, repeated ones too
    refuse: Callable[[Any], Exception | None] = lambda request: None
    silence: Exception | None = None  # what the client of a creation sees in place of the answer
    _resources: dict[str, Any] = field(default_factory=dict)
    _by_request: dict[str, str] = field(default_factory=dict)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def create(self, kind: str, request: Any, resource: Any, state: str = "RUNNING") -> Any:
        """A new resource, or the one that this request made before."""
        self.calls += 1
        if (error := self.refuse(request)) is not None:
            raise error
        if request.request_id not in self._by_request:
            scope = request.parent if hasattr(request, "parent") else request.name
            count = 1 + sum(made.name.startswith(scope) for made in self.made)
            project = names.project_of(scope)
            ids = (project, scope.rsplit("/", 1)[1], count) if kind == "revision" else (project, f"{kind[0]}{count}")
            resource.name = names.build(kind, *ids)
            _set_state(resource, state)
            self._by_request[request.request_id] = resource.name
            self._resources[resource.name] = resource
            self.made.append(Made(resource.name, request, caller().actor, current_cause.get() or Cause()))
            if self.ends is not None:
                await self.end(resource.name, "SERVING" if kind == "revision" and self.ends != "FAILED" else self.ends)
        if self.silence is not None:
            raise self.silence
        return self._resources[self._by_request[request.request_id]]

    async def end(self, name: str, state: str = "SUCCEEDED", **fields: Any) -> None:
        """Have a resource end."""
        resource = self._resources[name]
        for key, value in fields.items():
            setattr(resource, key, value)
        _set_state(resource, state)
        async with self._changed:
            self._changed.notify_all()

    async def cancel(self, name: str) -> Any:
        """Cancel a resource that has not ended."""
        self.cancelled.append(name)
        if _state(self._resources[name]) not in ENDED:
            await self.end(name, "CANCELLED")
        return self._resources[name]

    async def watch(self, name: str) -> AsyncIterator[Any]:
        """The resource, and again when it ended."""
        if name not in self._resources:
            raise NotFound(f"{name} does not exist.")
        resource = self._resources[name]
        if _state(resource) not in ENDED:
            yield resource
            async with self._changed:
                await self._changed.wait_for(lambda: _state(resource) in ENDED)
        yield resource

    def of(self, kind: str) -> list[Made]:
        """What was made of a kind."""
        return [made for made in self.made if names.parse(made.name).kind == kind]


def _state(resource: Any) -> str:
    return str(type(resource).State.Name(resource.state))


def _set_state(resource: Any, state: str) -> None:
    resource.state = type(resource).State.Value(state)


class FakeDatasets(DatasetServiceServicer):
    """Datasets whose head is 7."""

    async def GetDataset(self, request: dataset_pb.GetDatasetRequest, context: Any) -> dataset_pb.Dataset:
        return dataset_pb.Dataset(name=request.name, head=7)


class FakeRecords(DatasetServiceServicer):
    """The dataset `digits` with two versions: 2 corrects the label of `k1`. Keeps who asked."""

    def __init__(self) -> None:
        self.actors: list[str] = []

    def _record(self, parent: str, key: str, revision: int, label: str, end: int = 0) -> dataset_pb.Record:
        edit = dataset_pb.Edit(author="bob" if revision == 2 else "ann", why="a 7" if revision == 2 else "")
        record = dataset_pb.Record(
            name=f"{parent}/records/{key}", key=key, revision=revision, end_revision=end, edit=edit
        )
        record.data.update({"label": label})
        return record

    def _asked(self, name: str) -> None:
        self.actors.append(caller().actor)
        if not name.split("/records/")[0].endswith("/datasets/digits"):
            raise NotFound(f"{name} does not exist.")

    async def GetDataset(self, request: dataset_pb.GetDatasetRequest, context: Any) -> dataset_pb.Dataset:
        self._asked(request.name)
        return dataset_pb.Dataset(name=request.name, head=2)

    async def ListRecords(self, request: dataset_pb.ListRecordsRequest, context: Any) -> dataset_pb.ListRecordsResponse:
        self._asked(request.parent)
        first = self._record(request.parent, "k1", request.version, "7" if request.version == 2 else "1")
        return dataset_pb.ListRecordsResponse(records=[first, self._record(request.parent, "k2", 1, "2")])

    async def ListRecordRevisions(
        self, request: dataset_pb.ListRecordRevisionsRequest, context: Any
    ) -> dataset_pb.ListRecordRevisionsResponse:
        self._asked(request.name)
        dataset, key = request.name.split("/records/")
        found = [self._record(dataset, key, 2, "7")] if key == "k1" else []
        end = 2 if key == "k1" else 0
        return dataset_pb.ListRecordRevisionsResponse(records=[self._record(dataset, key, 1, "1", end), *found])

    async def DiffVersions(
        self, request: dataset_pb.DiffVersionsRequest, context: Any
    ) -> dataset_pb.DiffVersionsResponse:
        self._asked(request.parent)
        if request.from_version == request.to_version:
            return dataset_pb.DiffVersionsResponse()
        after = self._record(request.parent, "k1", 2, "7")
        change = dataset_pb.Change(
            key="k1", kind=dataset_pb.Change.CHANGED, after=after.data, fields=["label"], edit=after.edit, revision=2
        )
        return dataset_pb.DiffVersionsResponse(changes=[change])


class FakeTraining(TrainingServiceServicer):
    """Runs that make version 1 of a model."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def CreateRun(self, request: training_pb.CreateRunRequest, context: Any) -> Any:
        run = training_pb.Run()
        run.CopyFrom(request.run)
        run.model_version = f"{request.parent}/models/{run.model}/versions/1"
        run.metrics["accuracy"] = 1.0
        return await self._desk.create("run", request, run)

    async def WatchRun(self, request: training_pb.WatchRunRequest, context: Any) -> AsyncIterator[training_pb.Run]:
        async for run in self._desk.watch(request.name):
            yield run

    async def CancelRun(self, request: training_pb.CancelRunRequest, context: Any) -> Any:
        return await self._desk.cancel(request.name)

    async def GetModel(self, request: training_pb.GetModelRequest, context: Any) -> training_pb.Model:
        return training_pb.Model(name=request.name, latest_version=4)


class FakeTuning(TuningServiceServicer):
    """Studies."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def CreateStudy(self, request: tuning_pb.CreateStudyRequest, context: Any) -> Any:
        study = tuning_pb.Study()
        study.CopyFrom(request.study)
        study.model_version = f"{request.parent}/models/{study.model}/versions/2"
        return await self._desk.create("study", request, study)

    async def WatchStudy(self, request: tuning_pb.WatchStudyRequest, context: Any) -> AsyncIterator[tuning_pb.Study]:
        async for study in self._desk.watch(request.name):
            yield study

    async def CancelStudy(self, request: tuning_pb.CancelStudyRequest, context: Any) -> Any:
        return await self._desk.cancel(request.name)


class FakeEvaluation(EvaluationServiceServicer):
    """Evaluations whose verdict passes unless the test says otherwise."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.passes = True

    async def CreateEvaluation(self, request: evaluation_pb.CreateEvaluationRequest, context: Any) -> Any:
        evaluation = evaluation_pb.Evaluation()
        evaluation.CopyFrom(request.evaluation)
        evaluation.verdict.passed = self.passes
        evaluation.verdict.reason = "accuracy 0.9"
        return await self._desk.create("evaluation", request, evaluation)

    async def WatchEvaluation(
        self, request: evaluation_pb.WatchEvaluationRequest, context: Any
    ) -> AsyncIterator[evaluation_pb.Evaluation]:
        async for evaluation in self._desk.watch(request.name):
            yield evaluation

    async def CancelEvaluation(self, request: evaluation_pb.CancelEvaluationRequest, context: Any) -> Any:
        return await self._desk.cancel(request.name)


class FakeServing(ServingServiceServicer):
    """Revisions that serve at once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def DeployModel(self, request: serving_pb.DeployModelRequest, context: Any) -> Any:
        revision = serving_pb.Revision(model_version=request.model_version, steps=request.steps)
        return await self._desk.create("revision", request, revision, "STARTING")

    async def WatchRevision(
        self, request: serving_pb.WatchRevisionRequest, context: Any
    ) -> AsyncIterator[serving_pb.Revision]:
        async for revision in self._desk.watch(request.name):
            yield revision


@dataclass
class Fakes:
    """All fakes over one desk."""

    desk: Desk = field(default_factory=Desk)

    def __post_init__(self) -> None:
        self.evaluation = FakeEvaluation(self.desk)  # type: ignore[abstract]

    def registrations(self) -> list[Registration]:
        """How a server is given them."""
        desk = self.desk
        return [
            Registration(add_DatasetServiceServicer_to_server, FakeDatasets(), _name("dataset")),  # type: ignore[abstract]
            Registration(add_TrainingServiceServicer_to_server, FakeTraining(desk), _name("training")),  # type: ignore[abstract]
            Registration(add_TuningServiceServicer_to_server, FakeTuning(desk), _name("tuning")),  # type: ignore[abstract]
            Registration(add_EvaluationServiceServicer_to_server, self.evaluation, _name("evaluation")),
            Registration(add_ServingServiceServicer_to_server, FakeServing(desk), _name("serving")),  # type: ignore[abstract]
        ]


SERVICES = ("dataset", "training", "tuning", "evaluation", "serving")


def _name(service: str) -> str:
    return f"{PACKAGE}.{service}.v1.{service.capitalize()}Service"
