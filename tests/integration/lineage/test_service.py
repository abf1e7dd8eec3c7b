"""The lineage service as it runs: events come by NATS, records are asked of the dataset service."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import add_DatasetServiceServicer_to_server
from penstock.api.event.v1.event_service_pb2 import ReplayEventsRequest
from penstock.api.event.v1.event_service_pb2_grpc import EventLogServiceStub
from penstock.api.lineage.v1 import lineage_service_pb2 as pb
from penstock.api.lineage.v1.lineage_service_pb2_grpc import LineageServiceStub
from penstock.backing.stack import Stack
from penstock.errors import InvalidArgument, NotFound, PermissionDenied
from penstock.events import NewEvent, Relay
from penstock.rpc.server import Registration
from penstock.runtime.service import Context, Service
from penstock.store import Aggregates
from services.lineage.service import build
from tests.support.fakes import FakeRecords
from tests.support.hosts import World, own_stack, world_of
from tests.support.pipeline_platform import eventually
from tests.support.story import Teller, Thing, first_loop, second_loop

pytestmark = pytest.mark.asyncio(loop_scope="module")

Graph = pb.TraceResponse | pb.ImpactResponse
ANYTHING = {"training": ("penstock.>", "penstock-replay.>")}  # the story's service speaks for all


def build_story(context: Context) -> Service:
    """A service that emits what tests tell."""
    things = Aggregates(context.database(), "things", Thing)
    relay = Relay(context.database(), [things], context.bus)
    return Service("training", [], prepare=things.prepare, tasks=[relay.run])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with own_stack(tmp_path_factory.mktemp("lineage")) as running:
        yield running


@pytest.fixture(scope="module")
def records() -> FakeRecords:
    return FakeRecords()  # type: ignore[abstract]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(servers: Stack, records: FakeRecords, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    service = "penstock.api.dataset.v1.DatasetService"
    fake = {"dataset": Registration(add_DatasetServiceServicer_to_server, records, service)}
    builds = {"lineage": build, "training": build_story}
    async with world_of(servers, tmp_path_factory.mktemp("home"), builds, fake, ANYTHING) as running:
        yield running


class Told:
    """A project in which the story was told, and a client of it."""

    def __init__(self, world: World, teller: Teller) -> None:
        self.world = world
        self.teller = teller
        self.project = teller.project
        self.api = world.stub(LineageServiceStub, "lineage", world.mint(teller.project, "viewer"))
        self.at_least: dict[str, int] = {}

    def name(self, path: str) -> str:
        return self.teller.name(path)

    async def trace(self, path: str, **more: Any) -> pb.TraceResponse:
        request = pb.TraceRequest(name=self.name(path), **{"at_least": self.at_least, **more})
        found: pb.TraceResponse = await self.api.Trace(request)
        return found

    async def records(self, path: str, **more: Any) -> pb.ListTracedRecordsResponse:
        request = pb.ListTracedRecordsRequest(name=self.name(path), at_least=self.at_least, **more)
        found: pb.ListTracedRecordsResponse = await self.api.ListTracedRecords(request)
        return found

    async def impact(self, path: str) -> pb.ImpactResponse:
        found: pb.ImpactResponse = await self.api.Impact(pb.ImpactRequest(name=self.name(path), at_least=self.at_least))
        return found

    def nodes(self, answer: Any) -> set[str]:
        return {node.name.removeprefix(f"projects/{self.project}/") for node in answer.nodes}


@pytest_asyncio.fixture(loop_scope="module")
async def told(world: World) -> Told:
    teller = await Teller.open(world.running.contexts["training"].database(), "p" + secrets.token_hex(4))
    # The same collection as the relay's, so that its sweep finds what this one writes.
    teller.things = world.running.services[-1].tasks[0].__self__._outboxes[0].aggregates  # type: ignore[attr-defined]
    made = Told(world, teller)
    await first_loop(teller)
    sequence = await second_loop(teller)
    made.at_least = {
        teller.name("endpoints/live/revisions/2"): sequence,  # a child: its sequence is its endpoint's
        teller.name("models/digits"): 2,
        teller.name("runs/two"): 2,
        teller.name("datasets/digits"): 2,
        teller.name("pipelines/retrain/runs/r1"): 4,
        teller.name("evaluations/e1"): 1,
    }
    await eventually(lambda: fresh(made), 30)
    return made


PREDICTION = "endpoints/live/revisions/2/predictions/0b9f3c1e-8a52-4b1e-9d8e-0f4ad4c8f2aa"


async def test_a_prediction_that_was_not_recorded_is_traced_by_its_name_alone(told: Told) -> None:
    found = await told.trace(PREDICTION)
    assert not found.stale
    assert told.nodes(found) == {
        PREDICTION, "endpoints/live/revisions/2", "models/digits/versions/2", "runs/two", "datasets/digits/versions/2",
        "datasets/digits@2", "pipelines/retrain/runs/r1",
    }  # fmt: skip
    assert found.correlation_id == "loop"
    assert found.previous_dataset_version == told.name("datasets/digits/versions/1")
    assert not found.recorded
    edges = {(edge.source.rsplit("/", 2)[-2], edge.relation) for edge in found.edges}
    assert {("revisions", "answered"), ("versions", "deployed_as"), ("runs", "produced")} <= edges
    version = next(node for node in found.nodes if node.name.endswith("datasets/digits/versions/2"))
    assert version.attributes["author"] == "ann"
    assert version.attributes["changed"] == 112


async def test_the_first_revision_has_nothing_before_it(told: Told) -> None:
    assert (await told.trace("endpoints/live/revisions/1")).previous_dataset_version == ""


async def test_what_no_event_told_of_is_not_found(told: Told) -> None:
    for path in ("endpoints/live/revisions/9", "endpoints/live/revisions/9/predictions/x", "runs/none"):
        with pytest.raises(NotFound, match="no event told of it"):
            await told.trace(path)
        with pytest.raises(NotFound):
            await told.impact(path)
    with pytest.raises(NotFound):
        await told.records("endpoints/live/revisions/9")
    with pytest.raises(InvalidArgument) as caught:
        await told.api.Trace(pb.TraceRequest(name=told.name("what/is/this")))
    assert caught.value.violations[0].field == "name"


async def test_a_revision_of_a_model_that_no_event_told_of_yet_is_traced_as_far_as_known(told: Told) -> None:
    sequence = await told.teller.deploy(3, 77, chain="x", previous=2)
    revision = "endpoints/live/revisions/3"
    found = await told.trace(revision, at_least={told.name("endpoints/live"): sequence})
    assert revision in told.nodes(found)
    assert found.previous_dataset_version == told.name("datasets/digits/versions/2")
    with pytest.raises(NotFound):
        await told.records(revision)


async def test_records_are_those_that_changed_since_what_was_served_before(told: Told, records: FakeRecords) -> None:
    found = await told.records(PREDICTION)
    assert found.dataset_version == told.name("datasets/digits/versions/2")
    assert found.compared_with == told.name("datasets/digits/versions/1")
    (record,) = found.records
    assert (record.key, record.revision, record.change, list(record.fields)) == (
        "k1",
        2,
        dataset_pb.Change.CHANGED,
        ["label"],
    )
    assert (record.author, record.why, record.after["label"]) == ("bob", "a 7", "7")
    assert record.name == told.name("datasets/digits/records/k1")
    assert set(records.actors) == {"ann"}


async def test_records_can_be_compared_with_another_version_or_listed_whole(told: Told) -> None:
    assert [r.key for r in (await told.records("models/digits/versions/2", changed_since="1")).records] == ["k1"]
    by_name = await told.records(PREDICTION, changed_since=told.name("datasets/digits/versions/2"))
    assert (list(by_name.records), by_name.compared_with) == ([], told.name("datasets/digits/versions/2"))
    whole = await told.records("runs/two", changed_since="all")
    assert [(r.key, r.change) for r in whole.records] == [("k1", 0), ("k2", 0)]
    for wrong in ("0", "zero", told.name("datasets/other/versions/1")):
        with pytest.raises(InvalidArgument) as caught:
            await told.records(PREDICTION, changed_since=wrong)
        assert caught.value.violations[0].field == "changed_since"
    with pytest.raises(InvalidArgument):
        await told.records("evaluations/e1")


async def test_a_record_leads_to_versions_runs_models_and_endpoints(told: Told) -> None:
    old = told.nodes(await told.impact("datasets/digits/records/k1"))
    assert old >= {
        "datasets/digits/records/k1", "datasets/digits/versions/1", "datasets/digits/versions/2", "runs/one",
        "runs/two", "models/digits/versions/1", "evaluations/e1", "endpoints/live/revisions/2",
    }  # fmt: skip
    version = told.nodes(await told.impact("datasets/digits/versions/2"))
    assert "endpoints/live/revisions/2" in version
    assert "runs/one" not in version
    assert "runs/two@1" not in version  # an event that caused nothing
    with pytest.raises(NotFound):
        await told.impact("datasets/none/records/k1")


async def test_names_of_other_projects_are_refused(told: Told) -> None:
    for name in ("projects/other/runs/r", "projects/other/endpoints/e/revisions/1/predictions/x"):
        with pytest.raises(PermissionDenied):
            await told.api.Trace(pb.TraceRequest(name=name))
        with pytest.raises(PermissionDenied):
            await told.api.Impact(pb.ImpactRequest(name=name))
        with pytest.raises(PermissionDenied):
            await told.api.ListTracedRecords(pb.ListTracedRecordsRequest(name=name))
    with pytest.raises(PermissionDenied):
        await told.records(PREDICTION, changed_since="projects/other/datasets/digits/versions/1")
    with pytest.raises(PermissionDenied):
        await told.api.ResetGraph(pb.ResetGraphRequest())


async def test_a_reader_waits_for_its_own_writes_then_is_told_that_the_answer_is_old(told: Told) -> None:
    run = {"run": told.name("runs/three"), "datasetVersion": told.name("datasets/digits/versions/2")}
    sequence = await told.teller.tell("runs/three", NewEvent("training.run.queued", run))
    assert not (await told.trace("runs/three", at_least={told.name("runs/three"): sequence})).stale
    began = time.monotonic()
    late = await told.trace("runs/three", at_least={told.name("runs/three"): sequence + 1})
    assert late.stale
    assert 1.5 < time.monotonic() - began < 5


async def test_a_replay_builds_the_same_graph_again(told: Told, world: World) -> None:
    for path in (PREDICTION, "evaluations/e1"):
        await told.trace(path)
    before: list[Graph] = [await told.trace(PREDICTION), await told.impact("datasets/digits/versions/1")]
    token = world.home_token()
    await world.stub(LineageServiceStub, "lineage", token).ResetGraph(pb.ResetGraphRequest())
    with pytest.raises(NotFound):
        await told.trace(PREDICTION, at_least={})
    log = world.stub(EventLogServiceStub, "training", token)
    sent = await log.ReplayEvents(ReplayEventsRequest(service="training"))
    assert sent.events >= 17
    await eventually(lambda: fresh(told), 30)
    after: list[Graph] = [await told.trace(PREDICTION), await told.impact("datasets/digits/versions/1")]
    for seen, again in zip(before, after, strict=True):
        assert sorted(n.SerializeToString(deterministic=True) for n in again.nodes) == sorted(
            n.SerializeToString(deterministic=True) for n in seen.nodes
        )
        assert {(e.source, e.target, e.relation) for e in again.edges} == {
            (e.source, e.target, e.relation) for e in seen.edges
        }


async def fresh(told: Told) -> bool:
    try:
        return not (await told.trace(PREDICTION)).stale
    except NotFound:
        return False
