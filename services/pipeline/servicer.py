"""proto <-> model of pipelines, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty

from penstock import names
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb
from penstock.api.pipeline.v1.pipeline_service_pb2_grpc import PipelineServiceServicer
from penstock.errors import InvalidArgument
from penstock.events.freshness import Freshness
from penstock.rpc.caller import caller
from penstock.rpc.masks import apply_field_mask
from penstock.rpc.paging import decode_token, encode_token, page_size
from penstock.rpc.request_ids import request_key
from penstock.rpc.structs import from_struct, to_struct
from penstock.rpc.times import to_timestamp
from penstock.rpc.watch import watch
from penstock.store import Stored, now, parse_time
from services.pipeline import model
from services.pipeline.commands import Pipelines

Context = Any


def _duration(seconds: float) -> Duration:
    result = Duration()
    result.FromMicroseconds(round(seconds * 1e6))  # as exact as `_seconds`: an update may give it back
    return result


def _seconds(value: Duration, field: str) -> float:
    try:
        return value.ToTimedelta().total_seconds()
    except (OverflowError, ValueError):
        raise InvalidArgument("This is no duration.", field=f"pipeline.trigger.debounce.{field}") from None


def pipeline_from(spec: pb.Pipeline, author: str) -> model.Pipeline:
    """The value that a request asks for."""
    name = names.parse(spec.name, kind="pipeline", field="pipeline.name")
    debounce = spec.trigger.debounce if spec.trigger.HasField("debounce") else None
    at = now()
    return model.Pipeline(
        name=str(name),
        project=name.project,
        description=spec.description,
        trigger=model.Trigger(
            event=spec.trigger.event,
            filter=spec.trigger.filter,
            quiet=_seconds(debounce.quiet, "quiet") if debounce else None,
            max_wait=_seconds(debounce.max_wait, "max_wait") if debounce else None,
        ),
        steps=tuple(
            model.Step(step.id, step.action, from_struct(getattr(step, "with")), step.condition) for step in spec.steps
        ),
        max_recurrence=spec.max_recurrence,
        paused=spec.paused,
        generation=1,
        author=author,
        create_time=at,
        update_time=at,
    )


def pipeline_to(stored: Stored[model.Pipeline]) -> pb.Pipeline:
    """A pipeline as the API has it."""
    message = pipeline_spec(stored.value)
    message.etag, message.sequence = stored.etag, stored.sequence
    return message


def pipeline_spec(value: model.Pipeline) -> pb.Pipeline:
    """A pipeline as the API has it, but for what changes with every write."""
    trigger = pb.Trigger(event=value.trigger.event, filter=value.trigger.filter)
    if value.trigger.quiet is not None and value.trigger.max_wait is not None:
        trigger.debounce.quiet.CopyFrom(_duration(value.trigger.quiet))
        trigger.debounce.max_wait.CopyFrom(_duration(value.trigger.max_wait))
    steps = [
        pb.Step(id=s.id, action=s.action, condition=s.condition, **{"with": to_struct(s.settings)}) for s in value.steps
    ]
    return pb.Pipeline(
        name=value.name,
        description=value.description,
        trigger=trigger,
        steps=steps,
        max_recurrence=value.max_recurrence,
        paused=value.paused,
        generation=value.generation,
        author=value.author,
        create_time=to_timestamp(value.create_time),
        update_time=to_timestamp(value.update_time),
    )


def _cause(cause: model.Cause) -> pb.Cause:
    return pb.Cause(
        event_id=cause.event_id,
        type=cause.type,
        subject=cause.subject,
        time=to_timestamp(cause.time),
        data=to_struct(cause.data),
        correlation_id=cause.correlation_id,
    )


def run_to(stored: Stored[model.PipelineRun]) -> pb.PipelineRun:
    """A run as the API has it."""
    value = stored.value
    steps = [
        pb.StepRun(
            id=step.id,
            action=step.action,
            state=pb.StepRun.State.Value(step.state),
            resource=step.resource,
            reason=step.reason,
            outputs=to_struct(step.outputs),
            start_time=to_timestamp(step.start_time),
            end_time=to_timestamp(step.end_time),
        )
        for step in value.step_runs
    ]
    return pb.PipelineRun(
        name=value.name,
        state=pb.PipelineRun.State.Value(value.state),
        reason=value.reason,
        causes=[_cause(cause) for cause in value.causes],
        correlation_id=value.correlation_id,
        steps=steps,
        generation=value.generation,
        create_time=to_timestamp(value.create_time),
        end_time=to_timestamp(value.end_time),
        etag=stored.etag,
        sequence=stored.sequence,
    )


def _decision(row: Mapping[str, Any]) -> pb.Decision:
    cause = row["cause"]
    pipeline = names.parse(row["pipeline"])
    return pb.Decision(
        name=names.build("decision", pipeline.project, pipeline.id, row["_id"].rsplit("|", 1)[1]),
        time=to_timestamp(parse_time(row["decided"])),
        outcome=pb.Decision.Outcome.Value(row["outcome"]),
        reason=row["reason"],
        run=row["run"],
        cause=pb.Cause(
            event_id=cause["event_id"],
            type=cause["type"],
            subject=cause["subject"],
            time=to_timestamp(parse_time(cause["time"])),
            data=to_struct(cause["data"]),
            correlation_id=cause["correlation_id"],
        ),
    )


class PipelineServicer(PipelineServiceServicer):
    """The pipeline API."""

    def __init__(self, pipelines: Pipelines, freshness: Freshness) -> None:
        self._pipelines = pipelines
        self._repository = pipelines.repository
        self._freshness = freshness

    async def UpdatePipeline(self, request: pb.UpdatePipelineRequest, context: Context) -> pb.Pipeline:
        name = str(names.parse(request.pipeline.name, kind="pipeline", field="pipeline.name"))
        author = caller().actor

        def spec(stored: model.Pipeline | None) -> model.Pipeline:
            if stored is None:
                return pipeline_from(request.pipeline, author)
            return pipeline_from(apply_field_mask(request.update_mask, request.pipeline, pipeline_spec(stored)), author)

        return pipeline_to(
            await self._pipelines.apply(name, spec, allow_missing=request.allow_missing, etag=request.pipeline.etag)
        )

    async def GetPipeline(self, request: pb.GetPipelineRequest, context: Context) -> pb.Pipeline:
        return pipeline_to(await self._repository.pipelines.get(str(names.parse(request.name, kind="pipeline"))))

    async def ListPipelines(self, request: pb.ListPipelinesRequest, context: Context) -> pb.ListPipelinesResponse:
        page = await self._repository.pipelines.find(
            eq={"project": names.parse(request.parent, kind="project", field="parent").project},
            order_by="id",
            limit=page_size(request.page_size),
            after=decode_token(request.page_token, request),
        )
        return pb.ListPipelinesResponse(
            pipelines=[pipeline_to(stored) for stored in page], next_page_token=encode_token(page.next, request)
        )

    async def DeletePipeline(self, request: pb.DeletePipelineRequest, context: Context) -> Empty:
        await self._pipelines.delete(str(names.parse(request.name, kind="pipeline")), request.etag)
        return Empty()

    async def GetPipelineRun(self, request: pb.GetPipelineRunRequest, context: Context) -> pb.PipelineRun:
        return run_to(await self._repository.runs.get(str(names.parse(request.name, kind="pipeline_run"))))

    async def ListPipelineRuns(
        self, request: pb.ListPipelineRunsRequest, context: Context
    ) -> pb.ListPipelineRunsResponse:
        page = await self._repository.runs_page(
            str(names.parse(request.parent, kind="pipeline", field="parent")),
            page_size(request.page_size),
            decode_token(request.page_token, request),
        )
        return pb.ListPipelineRunsResponse(
            pipeline_runs=[run_to(stored) for stored in page], next_page_token=encode_token(page.next, request)
        )

    async def CancelPipelineRun(self, request: pb.CancelPipelineRunRequest, context: Context) -> pb.PipelineRun:
        return run_to(await self._pipelines.cancel(str(names.parse(request.name, kind="pipeline_run"))))

    async def RetryPipelineRun(self, request: pb.RetryPipelineRunRequest, context: Context) -> pb.PipelineRun:
        name = str(names.parse(request.name, kind="pipeline_run"))
        return run_to(await self._pipelines.retry(name, request_key(request, name)))

    async def WatchPipelineRun(
        self, request: pb.WatchPipelineRunRequest, context: Context
    ) -> AsyncIterator[pb.PipelineRun]:
        name = str(names.parse(request.name, kind="pipeline_run"))
        async for stored in watch(
            lambda: self._repository.runs.get(name), version=lambda s: s.version, done=lambda s: s.value.state.final
        ):
            yield run_to(stored)

    async def GetDecision(self, request: pb.GetDecisionRequest, context: Context) -> pb.Decision:
        return _decision(await self._repository.decision(names.parse(request.name, kind="decision")))

    async def ListDecisions(self, request: pb.ListDecisionsRequest, context: Context) -> pb.ListDecisionsResponse:
        pipeline = names.parse(request.parent, kind="pipeline", field="parent")
        stale = not await self._freshness.reached(request.at_least, pipeline.project)
        as_of = now()
        bare = pb.ListDecisionsRequest(parent=request.parent, page_token=request.page_token)
        page = await self._repository.decisions_page(
            str(pipeline), page_size(request.page_size), decode_token(request.page_token, bare)
        )
        return pb.ListDecisionsResponse(
            decisions=[_decision(row) for row in page],
            next_page_token=encode_token(page.next, bare),
            stale=stale,
            as_of=to_timestamp(as_of),
        )
