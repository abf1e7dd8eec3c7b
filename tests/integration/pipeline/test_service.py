"""The whole service: its API, events that come by NATS, and events from outside, over servers of its own."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import grpc
import nats
import pytest
import pytest_asyncio

from penstock.api.event.v1 import event_service_pb2 as events_pb
from penstock.api.event.v1.event_service_pb2_grpc import EventServiceStub
from penstock.api.event.v1.events_pb2 import Event as EventMessage
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb
from penstock.api.pipeline.v1.pipeline_service_pb2_grpc import PipelineServiceStub
from penstock.backing.stack import Stack
from penstock.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from penstock.events.credentials import external_permissions, inbox_prefix
from penstock.rpc.structs import to_struct
from penstock.sdk.pipelines import apply_request
from services.pipeline.service import build
from tests.support.fakes import Fakes
from tests.support.hosts import World, own_stack, world_of
from tests.support.pipeline_platform import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with own_stack(tmp_path_factory.mktemp("pipeline")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fakes() -> Fakes:
    return Fakes()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(servers: Stack, fakes: Fakes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    home = tmp_path_factory.mktemp("home")
    by_service = {entry.service.split(".")[2]: entry for entry in fakes.registrations()}
    async with world_of(servers, home, {"pipeline": build}, by_service) as running:
        yield running


@pytest.fixture
def project() -> str:
    return "p" + secrets.token_hex(4)


class Api:
    """A client of one project."""

    def __init__(self, world: World, project: str, role: str = "editor") -> None:
        self.project = project
        self.parent = f"projects/{project}"
        token = world.mint(project, role)
        self.pipelines = world.stub(PipelineServiceStub, "pipeline", token)
        self.events = world.stub(EventServiceStub, "pipeline", token)

    def spec(self, id: str = "p", **fields: Any) -> pb.Pipeline:
        steps = [step("train", dataset="digits", algorithm="mlp")]
        defaults: dict[str, Any] = {"trigger": pb.Trigger(event="camera.full"), "steps": steps}
        return pb.Pipeline(name=f"{self.parent}/pipelines/{id}", **{**defaults, **fields})

    async def apply(self, spec: pb.Pipeline | None = None, **fields: Any) -> pb.Pipeline:
        made: pb.Pipeline = await self.pipelines.UpdatePipeline(apply_request(spec or self.spec(**fields)))
        return made

    async def publish(self, type: str = "camera.full", **fields: Any) -> EventMessage:
        data = to_struct(fields.pop("data", {"n": 1}))
        event = EventMessage(type=type, data=data, **fields)
        sent: EventMessage = await self.events.PublishEvent(
            events_pb.PublishEventRequest(parent=self.parent, event=event)
        )
        return sent

    async def decisions(self, pipeline: str = "p", **more: Any) -> pb.ListDecisionsResponse:
        request = pb.ListDecisionsRequest(parent=f"{self.parent}/pipelines/{pipeline}", **more)
        found: pb.ListDecisionsResponse = await self.pipelines.ListDecisions(request)
        return found

    async def decided(self, count: int, pipeline: str = "p") -> list[pb.Decision]:
        deadline = time.monotonic() + 15
        while True:
            found = list((await self.decisions(pipeline)).decisions)
            if len(found) >= count and not any(d.outcome == pb.Decision.DEBOUNCED for d in found):
                return found
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.03)

    async def runs(self, pipeline: str = "p") -> list[pb.PipelineRun]:
        request = pb.ListPipelineRunsRequest(parent=f"{self.parent}/pipelines/{pipeline}")
        return list((await self.pipelines.ListPipelineRuns(request)).pipeline_runs)


def step(action: str, id: str = "", condition: str = "", **settings: Any) -> pb.Step:
    return pb.Step(id=id or action, action=action, condition=condition, **{"with": to_struct(settings)})


@pytest.fixture
def api(world: World, project: str) -> Api:
    return Api(world, project)


async def test_applying_the_same_again_changes_nothing(api: Api) -> None:
    first = await api.apply(trigger=pb.Trigger(event="dev.penstock.dataset.version.committed.v1", filter="true"))
    assert (first.generation, first.author, first.max_recurrence) == (1, "ann", 3)
    assert first.trigger.event == "dataset.version.committed"
    again = await api.apply(trigger=pb.Trigger(event="dataset.version.committed", filter="true"))
    assert again == first
    changed = await api.apply(paused=True)
    assert (changed.generation, changed.create_time) == (2, first.create_time)


async def test_a_change_over_what_somebody_else_changed_is_refused(api: Api) -> None:
    read = await api.apply()
    changed = await api.apply(paused=True)
    with pytest.raises(Conflict, match="changed since you read it"):
        await api.apply(spec=read)
    again = await api.apply(spec=pb.Pipeline(**{**_fields(changed), "paused": False}))
    assert (again.generation, again.paused) == (3, False)
    assert (await api.apply(spec=again)) == again


def _fields(message: pb.Pipeline) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


async def test_a_pipeline_is_made_only_where_that_is_wanted(api: Api) -> None:
    with pytest.raises(NotFound):
        await api.pipelines.UpdatePipeline(pb.UpdatePipelineRequest(pipeline=api.spec()))
    await api.apply()
    await api.pipelines.DeletePipeline(pb.DeletePipelineRequest(name=api.spec().name))
    with pytest.raises(NotFound):
        await api.pipelines.GetPipeline(pb.GetPipelineRequest(name=api.spec().name))


async def test_viewers_and_other_projects_may_not_apply(world: World, project: str) -> None:
    with pytest.raises(PermissionDenied):
        await Api(world, project, "viewer").apply()
    other = Api(world, "elsewhere")
    with pytest.raises(PermissionDenied):
        await other.apply(Api(world, project).spec())


async def test_an_event_from_outside_runs_the_pipeline_and_repeats_do_not(api: Api) -> None:
    await api.apply()
    first = await api.publish(id="a1", source="//cam/1")
    assert first.correlation_id
    await api.publish(id="a1", source="//cam/1")
    await api.publish(id="a1", source="//cam/2")
    found = await api.decided(2)
    await asyncio.sleep(0.3)
    assert len((await api.decisions()).decisions) == 2
    assert [d.outcome for d in found] == [pb.Decision.FIRED] * 2
    async for run in api.pipelines.WatchPipelineRun(pb.WatchPipelineRunRequest(name=found[0].run)):
        last = run
    assert last.state == pb.PipelineRun.SUCCEEDED, last.reason
    assert last.causes[0].event_id == "a1"
    assert found[0].run in {run.name for run in await api.runs()}


async def test_penstocks_own_types_are_refused_from_outside(api: Api) -> None:
    with pytest.raises(InvalidArgument, match="own") as caught:
        await api.publish("dev.penstock.dataset.version.committed.v1")
    assert caught.value.violations[0].field == "type"


async def test_a_program_that_knows_only_nats_triggers_a_pipeline(servers: Stack, api: Api) -> None:
    await api.apply()
    user = f"{api.project}-camera"
    credentials = servers.credentials(user, external_permissions(user, api.project))
    client = await nats.connect(
        servers.nats_url, user_credentials=str(credentials), inbox_prefix=inbox_prefix(user).encode()
    )
    headers = {"ce-specversion": "1.0", "ce-id": "n1", "ce-type": "camera.full", "ce-source": "//cam/9"}
    await client.request(
        f"penstock.{api.project}.external.cam.full", json.dumps({"n": 2}).encode(), headers=headers, timeout=5
    )
    await client.close()
    (decision,) = await api.decided(1)
    assert (decision.outcome, decision.cause.event_id, decision.cause.data["n"]) == (pb.Decision.FIRED, "n1", 2)


async def test_a_watcher_misses_nothing_after_it_was_told_that_the_stream_is_on(world: World, api: Api) -> None:
    metadata = (("authorization", f"Bearer {world.mint(api.project, 'viewer')}"),)
    async with grpc.aio.insecure_channel(world.running.address) as channel:
        request = events_pb.WatchEventsRequest(parent=api.parent, type="camera")
        stream = EventServiceStub(channel).WatchEvents(request, metadata=metadata)
        await stream.initial_metadata()
        await Api(world, "elsewhere").publish("camera.full", id="not-mine")
        await api.publish("door.open", id="not-asked-for")
        await api.publish("camera.full", id="w1")
        event = await asyncio.wait_for(stream.read(), 10)
        stream.cancel()
    assert isinstance(event, EventMessage)
    assert (event.id, event.type, event.project) == ("w1", "camera.full", api.project)


async def test_runs_trigger_other_pipelines_in_the_same_chain(api: Api) -> None:
    await api.apply()
    follow = api.spec(
        "q", trigger=pb.Trigger(event="pipeline.run.succeeded", filter="event.data.pipeline.endsWith('/p')")
    )
    await api.apply(follow)
    sent = await api.publish()
    (decision,) = await api.decided(1, "q")
    assert decision.outcome == pb.Decision.FIRED
    (run,) = await api.runs("q")
    assert run.correlation_id == sent.correlation_id


async def test_decisions_wait_for_what_the_reader_knows_of(api: Api) -> None:
    made = await api.apply(trigger=pb.Trigger(event="pipeline.applied"))
    other = await api.apply(api.spec("other"))
    found = await api.decisions(at_least={other.name: other.sequence, made.name: made.sequence})
    assert not found.stale
    assert {d.cause.subject for d in found.decisions} >= {other.name}
    began = time.monotonic()
    late = await api.decisions(at_least={made.name: made.sequence + 5, "projects/elsewhere/pipelines/x": 9})
    assert late.stale
    assert 1.5 < time.monotonic() - began < 5
    assert not (await api.decisions(at_least={"projects/elsewhere/pipelines/x": 9})).stale


async def test_decisions_come_in_pages_newest_first(api: Api) -> None:
    await api.apply(trigger=pb.Trigger(event="camera.full", filter="false"))
    for n in range(5):
        await api.publish(id=f"e{n}")
    await api.decided(5)
    first = await api.decisions(page_size=3)
    rest = await api.decisions(page_size=3, page_token=first.next_page_token)
    assert [d.cause.event_id for d in (*first.decisions, *rest.decisions)] == ["e4", "e3", "e2", "e1", "e0"]
    assert rest.next_page_token == ""
    assert "does not hold" in first.decisions[0].reason


async def made_since(fakes: Fakes, before: int) -> bool:
    return len(fakes.desk.made) > before


async def test_a_stop_and_a_start_in_the_middle_of_a_step_adopt_what_it_made(
    world: World, fakes: Fakes, project: str
) -> None:
    fakes.desk.ends = None
    before = len(fakes.desk.made)
    await Api(world, project).apply()
    await Api(world, project).publish()
    (decision,) = await Api(world, project).decided(1)
    await eventually(lambda: made_since(fakes, before))
    await world.stop()
    await world.start()
    fakes.desk.ends = "SUCCEEDED"
    api = Api(world, project)
    await fakes.desk.end(fakes.desk.made[-1].name)
    async for run in api.pipelines.WatchPipelineRun(pb.WatchPipelineRunRequest(name=decision.run)):
        last = run
    assert last.state == pb.PipelineRun.SUCCEEDED
    assert len(fakes.desk.made) == before + 1
    assert replace(fakes.desk.made[-1]).actor == "ann"
