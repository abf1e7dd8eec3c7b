"""TrainingService on the wire: messages to values and back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from penstock import names
from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceServicer
from penstock.errors import InvalidArgument, PermissionDenied
from penstock.rpc.caller import RUNNER, SERVICE, caller
from penstock.rpc.paging import decode_token, encode_token, page_size
from penstock.rpc.request_ids import request_id, resource_id
from penstock.rpc.watch import Signals, watch
from penstock.store import Stored, now
from services.training import converters, reading
from services.training.commands import Commands
from services.training.logs import Logs
from services.training.model import FINAL
from services.training.tokens import token_id

Context = Any


@dataclass(frozen=True)
class TrainingServicer(TrainingServiceServicer):
    """Converts, delegates, returns. `signals` tells watchers of runs that one has changed."""

    commands: Commands
    logs: Logs
    signals: Signals

    async def CreateCodeArchive(self, request: pb.CreateCodeArchiveRequest, context: Context) -> pb.CodeArchive:
        project = names.parse(request.parent, kind="project", field="parent").id
        digest, size = await self.commands.create_archive(project, request.data)
        return pb.CodeArchive(digest=digest, size=size)

    async def CreateRun(self, request: pb.CreateRunRequest, context: Context) -> pb.Run:
        project = names.parse(request.parent, kind="project", field="parent").id
        if request.run.trial and caller().role != SERVICE:
            raise InvalidArgument("Only a study makes runs of its trials: leave `trial` out.", field="run.trial")
        name = names.build("run", project, resource_id(request, project))
        run = converters.new_run(request.run, name=name, project=project, author=caller().actor, created=now())
        if request.validate_only:
            return converters.run_message(Stored(name, await self.commands.check_run(run), 0, 0))
        return converters.run_message(await self.commands.create_run(run, request_id(request)))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.Run:
        return converters.run_message(await self.commands.repository.runs.get(_name(request.name, "run")))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        project = names.parse(request.parent, kind="project", field="parent").id
        state = pb.Run.State.Name(request.state) if request.state else ""
        page = await self.commands.repository.list_runs(
            project,
            state,
            request.dataset_version,
            page_size(request.page_size),
            decode_token(request.page_token, request),
        )
        runs = [converters.run_message(stored) for stored in page]
        return pb.ListRunsResponse(runs=runs, next_page_token=encode_token(page.next, request))

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.Run:
        return converters.run_message(await self.commands.cancel_run(_name(request.name, "run")))

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.Run]:
        name = _name(request.name, "run")
        changes = watch(
            lambda: self.commands.repository.runs.get(name),
            version=lambda stored: stored.version,
            done=lambda stored: stored.value.state in FINAL,
            signals=self.signals,
            key=name,
        )
        async for stored in changes:
            yield converters.run_message(stored)

    async def ReadLog(self, request: pb.ReadLogRequest, context: Context) -> AsyncIterator[pb.ReadLogResponse]:
        name = _name(request.name, "run")
        if request.offset < 0 or request.tail < 0:
            raise InvalidArgument("offset and tail are not negative.", field="offset" if request.offset < 0 else "tail")
        async for attempt, (offset, data) in self.logs.read(
            name, request.attempt, offset=request.offset, follow=request.follow, tail=request.tail
        ):
            yield pb.ReadLogResponse(data=data, offset=offset, attempt=attempt)

    async def AppendMetrics(self, request: pb.AppendMetricsRequest, context: Context) -> pb.AppendMetricsResponse:
        reporter = caller()
        name = _name(request.name, "run")
        if reporter.role == RUNNER and reporter.token_id != token_id(name, request.attempt):
            raise PermissionDenied("The token is for another attempt.")
        points = converters.points(request.metrics, time.time())
        await self.commands.append_metrics(name, request.attempt, request.batch_id, points)
        return pb.AppendMetricsResponse()

    async def ListMetrics(self, request: pb.ListMetricsRequest, context: Context) -> pb.ListMetricsResponse:
        repository = self.commands.repository
        run = (await repository.runs.get(_name(request.name, "run"))).value
        size, position = page_size(request.page_size), decode_token(request.page_token, request)
        page, next_ = await reading.list_metrics(repository, run, request.attempt, request.metric, size, position)
        metrics = [converters.metric_message(point) for point in page]
        return pb.ListMetricsResponse(metrics=metrics, next_page_token=encode_token(next_, request))

    async def ReadArtifact(
        self, request: pb.ReadArtifactRequest, context: Context
    ) -> AsyncIterator[pb.ReadArtifactResponse]:
        run = (await self.commands.repository.runs.get(_name(request.name, "run"))).value
        file = reading.find_file(run.artifacts, request.path, run.name)
        async for data in reading.stream(self.commands.objects, file.digest):
            yield pb.ReadArtifactResponse(data=data)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.Model:
        return converters.model_message(await self.commands.repository.models.get(_name(request.name, "model")))

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        project = names.parse(request.parent, kind="project", field="parent").id
        page = await self.commands.repository.list_models(
            project, page_size(request.page_size), decode_token(request.page_token, request)
        )
        models = [converters.model_message(stored) for stored in page]
        return pb.ListModelsResponse(models=models, next_page_token=encode_token(page.next, request))

    async def CreateModelVersion(self, request: pb.CreateModelVersionRequest, context: Context) -> pb.ModelVersion:
        parent = names.parse(request.parent, kind="model", field="parent")
        names.check_id(parent.id, "parent")
        run = str(names.parse(request.run, kind="run", field="run"))
        study = str(names.parse(request.study, kind="study", field="study")) if request.study else ""
        request_id(request)  # a run has one version of a model, whoever asks how often
        version = await self.commands.create_model_version(str(parent), run, study, caller().actor)
        return converters.version_message(version)

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Context) -> pb.ModelVersion:
        stored = await self.commands.repository.versions.get(_name(request.name, "model_version"))
        return converters.version_message(stored.value)

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        model = str(names.parse(request.parent, kind="model", field="parent"))
        page = await self.commands.repository.list_versions(
            model, page_size(request.page_size), decode_token(request.page_token, request)
        )
        versions = [converters.version_message(stored.value) for stored in page]
        return pb.ListModelVersionsResponse(model_versions=versions, next_page_token=encode_token(page.next, request))

    async def ReadModelFile(
        self, request: pb.ReadModelFileRequest, context: Context
    ) -> AsyncIterator[pb.ReadModelFileResponse]:
        version = (await self.commands.repository.versions.get(_name(request.name, "model_version"))).value
        file = reading.find_file(version.files, request.path, version.name)
        async for data in reading.stream(self.commands.objects, file.digest):
            yield pb.ReadModelFileResponse(data=data)


def _name(text: str, kind: str) -> str:
    return str(names.parse(text, kind=kind))
