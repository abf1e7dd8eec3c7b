"""proto <-> model, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from penstock import names
from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb
from penstock.api.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceServicer
from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.objects import ObjectStore
from penstock.rpc.caller import caller
from penstock.rpc.paging import decode_token, encode_token, page_size
from penstock.rpc.request_ids import request_id, resource_id
from penstock.rpc.times import to_timestamp
from penstock.rpc.watch import watch
from penstock.store import Stored
from services.evaluation import model
from services.evaluation.commands import Evaluations

Context = Any


def to_proto(stored: Stored[model.Evaluation]) -> pb.Evaluation:
    """An evaluation as the API has it."""
    value = stored.value
    made = pb.Evaluation(
        name=value.name,
        model_version=value.model_version,
        dataset_version=value.dataset_version,
        rule=value.rule,
        baseline=value.baseline,
        state=pb.Evaluation.State.Value(value.state),
        reason=value.reason,
        author=value.author,
        create_time=to_timestamp(value.create_time),
        end_time=to_timestamp(value.end_time),
        etag=stored.etag,
        sequence=stored.sequence,
        attempt=value.attempt,
    )
    if value.result is not None:
        result = value.result
        made.metrics.update(result.metrics)
        made.classes.extend(
            pb.ClassMetrics(label=c.label, precision=c.precision, recall=c.recall, f1=c.f1, support=c.support)
            for c in result.classes
        )
        made.confusion_matrix.labels.extend(result.labels)
        made.confusion_matrix.rows.extend(pb.ConfusionRow(counts=row) for row in result.confusion)
        made.predictions = result.predictions
        made.records = result.records
    if value.verdict is not None:
        verdict = value.verdict
        made.verdict.CopyFrom(
            pb.Verdict(
                passed=verdict.passed,
                rule=verdict.rule,
                baseline=verdict.baseline,
                baseline_metrics=verdict.baseline_metrics,
                reason=verdict.reason,
            )
        )
    return made


class EvaluationServicer(EvaluationServiceServicer):
    """The evaluation API."""

    def __init__(self, evaluations: Evaluations, objects: ObjectStore) -> None:
        self._evaluations = evaluations
        self._repository = evaluations.repository
        self._objects = objects

    async def CreateEvaluation(self, request: pb.CreateEvaluationRequest, context: Context) -> pb.Evaluation:
        project = names.parse(request.parent, kind="project", field="parent").project
        asked = request.evaluation
        return to_proto(
            await self._evaluations.create(
                project,
                resource_id(request, project),
                model=asked.model_version,
                dataset=asked.dataset_version,
                rule=asked.rule,
                baseline=asked.baseline,
                author=caller().actor,
                request_id=request_id(request),
            )
        )

    async def GetEvaluation(self, request: pb.GetEvaluationRequest, context: Context) -> pb.Evaluation:
        return to_proto(await self._get(request.name))

    async def ListEvaluations(self, request: pb.ListEvaluationsRequest, context: Context) -> pb.ListEvaluationsResponse:
        project = names.parse(request.parent, kind="project", field="parent").project
        if request.model_version:
            asked = names.parse(request.model_version, kind="model_version", field="model_version")
            if asked.project != project:
                raise InvalidArgument(f"{asked} is of another project than {request.parent}.", field="model_version")
        page = await self._repository.page(
            project, request.model_version, page_size(request.page_size), decode_token(request.page_token, request)
        )
        found = [to_proto(stored) for stored in page]
        return pb.ListEvaluationsResponse(evaluations=found, next_page_token=encode_token(page.next, request))

    async def CancelEvaluation(self, request: pb.CancelEvaluationRequest, context: Context) -> pb.Evaluation:
        return to_proto(await self._evaluations.cancel(str(names.parse(request.name, kind="evaluation"))))

    async def WatchEvaluation(
        self, request: pb.WatchEvaluationRequest, context: Context
    ) -> AsyncIterator[pb.Evaluation]:
        async for stored in watch(
            lambda: self._get(request.name), version=lambda s: s.version, done=lambda s: s.value.state.final
        ):
            yield to_proto(stored)

    async def ReadPredictions(
        self, request: pb.ReadPredictionsRequest, context: Context
    ) -> AsyncIterator[pb.ReadPredictionsResponse]:
        value = (await self._get(request.name)).value
        if value.result is None:
            raise FailedPrecondition("The evaluation has no predictions (yet): wait until it succeeded.")
        chunks = self._objects.read(value.result.predictions)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield pb.ReadPredictionsResponse(data=chunk)

    async def _get(self, name: str) -> Stored[model.Evaluation]:
        return await self._repository.evaluations.get(str(names.parse(name, kind="evaluation")))
