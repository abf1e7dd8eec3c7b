"""What requests may say beside the resource: masks, etags, request ids; over the whole service."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb
from penstock.errors import Conflict, InvalidArgument, NotFound
from tests.integration.pipeline.test_service import Api, api, fakes, project, servers, world
from tests.support.fakes import Fakes

__all__ = ["api", "fakes", "project", "servers", "world"]  # its fixtures, for servers of this module
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def change(api: Api, *mask: str, **fields: Any) -> pb.Pipeline:
    spec = pb.Pipeline(name=api.spec().name, **fields)
    request = pb.UpdatePipelineRequest(pipeline=spec, update_mask=FieldMask(paths=mask))
    made: pb.Pipeline = await api.pipelines.UpdatePipeline(request)
    return made


def but(pipeline: pb.Pipeline, **fields: Any) -> pb.Pipeline:
    """The pipeline as it was, but for these fields and what every write changes."""
    expected = pb.Pipeline()
    expected.CopyFrom(pipeline)
    expected.MergeFrom(pb.Pipeline(**fields))
    for field in ("update_time", "etag", "sequence", "generation"):
        expected.ClearField(field)
    return expected


async def test_an_update_changes_what_its_mask_names_and_nothing_else(api: Api) -> None:
    trigger = pb.Trigger(event="camera.full", filter="true")
    trigger.debounce.quiet.FromMicroseconds(1_234_567)
    trigger.debounce.max_wait.FromSeconds(30)
    first = await api.apply(trigger=trigger, description="sorts", max_recurrence=7)
    paused = await change(api, "paused", "description", paused=True, description="")
    assert (paused.description, paused.generation) == ("", 2)
    first.description = ""
    assert but(paused) == but(first, paused=True)
    # Into a message, and a field that the server writes: that one stays.
    narrowed = await change(api, "trigger.filter", "author", trigger=pb.Trigger(filter="false"), author="mallory")
    assert (narrowed.trigger.event, narrowed.trigger.filter, narrowed.author) == ("camera.full", "false", "ann")
    assert narrowed.trigger.debounce == trigger.debounce
    assert await change(api, "paused", paused=True) == narrowed  # as it is already


async def test_without_a_mask_an_update_changes_what_it_sets_and_a_star_means_all(api: Api) -> None:
    await api.apply(description="sorts", paused=True)
    named = await change(api, description="sorts apples")
    assert (named.description, named.paused, len(named.steps)) == ("sorts apples", True, 1)
    with pytest.raises(InvalidArgument) as caught:
        await change(api, "*", description="bare")  # of steps it says nothing
    assert caught.value.violations[0].field == "pipeline.steps"
    whole = await api.apply()
    assert (whole.description, whole.paused, whole.generation) == ("", False, 3)


async def test_a_mask_that_names_no_field_is_refused_and_changes_nothing(api: Api) -> None:
    made = await api.apply()
    with pytest.raises(InvalidArgument, match="not a field of Pipeline") as caught:
        await change(api, "paused", "colour", paused=True)
    assert caught.value.violations[0].field == "update_mask"
    assert await api.pipelines.GetPipeline(pb.GetPipelineRequest(name=made.name)) == made


async def test_a_pipeline_that_somebody_changed_is_not_deleted_over_what_was_read(api: Api) -> None:
    read = await api.apply()
    changed = await api.apply(paused=True)
    with pytest.raises(Conflict, match="changed since you read it"):
        await api.pipelines.DeletePipeline(pb.DeletePipelineRequest(name=read.name, etag=read.etag))
    assert await api.pipelines.GetPipeline(pb.GetPipelineRequest(name=read.name)) == changed
    await api.pipelines.DeletePipeline(pb.DeletePipelineRequest(name=read.name, etag=changed.etag))
    with pytest.raises(NotFound):
        await api.pipelines.GetPipeline(pb.GetPipelineRequest(name=read.name))


async def test_a_retry_that_is_sent_again_goes_on_once(api: Api, fakes: Fakes) -> None:
    fakes.desk.ends = "FAILED"
    await api.apply()
    await api.publish()
    (decision,) = await api.decided(1)
    watched = pb.WatchPipelineRunRequest(name=decision.run)
    async for _ in api.pipelines.WatchPipelineRun(watched):
        pass
    tries = len(fakes.desk.made)
    for request_id, made in (("one", 1), ("one", 1), ("two", 2)):
        await api.pipelines.RetryPipelineRun(pb.RetryPipelineRunRequest(name=decision.run, request_id=request_id))
        async for run in api.pipelines.WatchPipelineRun(watched):
            last = run
        assert (last.state, len(fakes.desk.made)) == (pb.PipelineRun.FAILED, tries + made)
    fakes.desk.ends = "SUCCEEDED"


async def test_a_decision_can_be_read_by_its_name(api: Api) -> None:
    await api.apply(trigger=pb.Trigger(event="camera.full", filter="false"))
    await api.publish()
    (decision,) = await api.decided(1)
    assert await api.pipelines.GetDecision(pb.GetDecisionRequest(name=decision.name)) == decision
    with pytest.raises(NotFound):
        await api.pipelines.GetDecision(pb.GetDecisionRequest(name=f"{decision.name}0"))
