"""Traffic comes to a revision step by step, while clients without retries ask without pause: none fails."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.backing.ports import free_port
from penstock.errors import FailedPrecondition
from services.serving import rollout, traffic
from services.serving.model import Endpoint
from tests.integration.edge.conftest import ModelServer
from tests.support.prediction_load import until
from tests.support.serving_platform import PROJECT, ServingPlatform

pytestmark = pytest.mark.asyncio(loop_scope="module")


def name_of(endpoint: str, revision: int) -> str:
    return f"projects/{PROJECT}/endpoints/{endpoint}/revisions/{revision}"


async def test_a_first_revision_answers_through_the_edge_with_a_prediction_name(shared: ServingPlatform) -> None:
    made = await shared.deploy("first", shared.model(2.0), 10, 100, hold=30.0)
    done = await shared.wait_for(made.name)
    assert (done.number, done.weight) == (1, 100)  # there was nothing to share the traffic with
    status, body, prediction = await shared.predict("first", x=3.0)
    assert status == 200 and body["outputs"][0]["data"] == [6.0]
    assert prediction.startswith(f"{made.name}/predictions/")
    found = await shared.endpoint("first")
    assert (found.state, found.revision, dict(found.weights)) == (pb.Endpoint.READY, made.name, {"1": 100})
    assert found.path == "/v2/models/first" and found.generation == found.observed_generation == 1
    assert found.model_version == made.model_version


async def test_a_shift_fails_no_request_and_tells_each_step(shared: ServingPlatform) -> None:
    await shared.served("scale", shared.model(2.0))
    async with shared.load("scale") as load:
        await load.more()
        made = await shared.deploy("scale", shared.model(3.0), 30, 100, hold=1.0)
        watch = shared.stub().WatchRevision(pb.WatchRevisionRequest(name=made.name))
        states = [(pb.Revision.State.Name(change.state), change.weight) async for change in watch]
        await shared.settled("scale")
        await load.more()
    assert load.failures == []
    assert set(load.answers) == {(2.0, 1), (3.0, 2)}
    assert states[-1] == ("SERVING", 100) and ("SHIFTING", 30) in states
    await shared.wait_for(name_of("scale", 1), pb.Revision.REMOVED)
    assert not (shared.home / "serving" / PROJECT / "scale" / "1").exists()
    events = await shared.events("scale")
    assert [event["type"].removeprefix("serving.") for event in events] == [
        *("traffic.changed", "revision.ready"),
        *("traffic.changed", "traffic.changed", "revision.ready"),
    ]
    assert events[2]["data"]["weights"] == {name_of("scale", 1): 70, name_of("scale", 2): 30}
    assert events[4]["data"] == {
        "endpoint": f"projects/{PROJECT}/endpoints/scale",
        "revision": made.name,
        "modelVersion": made.model_version,
        "previous": name_of("scale", 1),
    }


async def test_without_waiting_for_the_edge_requests_fail(
    shared: ServingPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above: the old one goes before the edge knows of the new one."""
    await shared.served("hasty", shared.model(2.0))
    real = traffic.Traffic.apply

    async def late(self: traffic.Traffic, endpoint: Endpoint, *more: Any) -> None:
        if not any(revision.state == "SHIFTING" for revision in endpoint.revisions):
            await real(self, endpoint, *more)

    monkeypatch.setattr(traffic.Traffic, "apply", late)
    monkeypatch.setattr(rollout.Rollout, "_retire", _stop_at_once)
    async with shared.load("hasty") as load:
        await shared.served("hasty", shared.model(3.0))
        await until(lambda: bool(load.failures))


async def _stop_at_once(self: Any, endpoint: Endpoint) -> None:
    for revision in endpoint.revisions:
        if revision.state == "DRAINING":
            await self._instances.remove(endpoint.name, revision.number)


async def test_a_revision_that_fails_requests_loses_its_share_again(shared: ServingPlatform) -> None:
    await shared.served("judged", shared.model(2.0))
    async with shared.load("judged", x=100.0) as load:
        made = await shared.deploy("judged", shared.model(3.0, fails_from=50), 50, 100, hold=60.0)
        failed = await shared.wait_for(made.name, pb.Revision.FAILED)
        await load.more(4)  # those that were on their way
        load.failures.clear()
        load.answers.clear()
        await load.more(50)
    assert "answers failed" in failed.reason
    assert load.failures == [] and load.revisions == {1}
    assert dict((await shared.endpoint("judged")).weights) == {"1": 100}
    await shared.settled("judged")
    assert [event["type"] for event in await shared.events("judged")][-2:] == [
        "serving.traffic.changed",
        "serving.revision.failed",
    ]


@pytest.fixture
def mute() -> Iterator[traffic.Address]:
    """The ports of a server that closes every connection instead of answering, and says UNAVAILABLE by gRPC."""
    server = ModelServer(2, mute=True)
    server.start()
    yield server.http_port, server.grpc_port
    server.kill()


@pytest.fixture
def closed() -> traffic.Address:
    """Ports where nobody listens."""
    return free_port(), free_port()


@pytest.mark.parametrize("instead", ["mute", "closed"])
async def test_a_revision_that_answers_nothing_loses_its_share_though_no_request_fails(
    shared: ServingPlatform, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, instead: str
) -> None:
    """It answered its examples; then what has its share of the traffic is somebody else. The old one answers for it."""
    await shared.served(instead, shared.model(2.0))
    real, address = traffic.Traffic.apply, request.getfixturevalue(instead)

    async def apply(self: traffic.Traffic, endpoint: Endpoint, addresses: dict[int, traffic.Address]) -> None:
        await real(self, endpoint, {number: address if number == 2 else known for number, known in addresses.items()})

    monkeypatch.setattr(traffic.Traffic, "apply", apply)
    async with shared.load(instead, clients=1) as load:
        made = await shared.deploy(instead, shared.model(3.0), 50, 100, hold=1.0)
        failed = await shared.wait_for(made.name, pb.Revision.FAILED)
        await load.more(50)
    assert re.match(r"(\d+) of its \1 answers failed", failed.reason)
    assert load.failures == [] and load.revisions == {1}
    assert dict((await shared.endpoint(instead)).weights) == {"1": 100}


async def test_a_rollback_brings_the_model_back_that_served_before(shared: ServingPlatform) -> None:
    first = await shared.served("back", shared.model(2.0))
    endpoint = f"projects/{PROJECT}/endpoints/back"
    with pytest.raises(FailedPrecondition, match="nothing to go back to"):
        await shared.stub().RollbackEndpoint(pb.RollbackEndpointRequest(name=endpoint))
    await shared.served("back", shared.model(3.0))
    request = pb.RollbackEndpointRequest(name=endpoint, request_id="once")
    made = await shared.stub().RollbackEndpoint(request)
    assert await shared.stub().RollbackEndpoint(request) == made or made.number == 3
    done = await shared.wait_for(made.name)
    assert (done.number, done.model_version) == (3, first.model_version)
    assert (await shared.predict("back"))[1]["outputs"][0]["data"] == [2.0]


async def test_a_rollback_during_a_shift_ends_it(shared: ServingPlatform) -> None:
    first = await shared.served("abort", shared.model(2.0))
    made = await shared.deploy("abort", shared.model(3.0), 50, 100, hold=600.0)
    waiting = await shared.deploy("abort", shared.model(4.0))
    await shared.wait_for(made.name, pb.Revision.SHIFTING)
    request = pb.RollbackEndpointRequest(name=f"projects/{PROJECT}/endpoints/abort")
    assert (await shared.stub().RollbackEndpoint(request)).name == first.name
    for name in (made.name, waiting.name):
        assert "rolled back by mo" in (await shared.wait_for(name, pb.Revision.FAILED)).reason
    found = await shared.endpoint("abort")
    assert (dict(found.weights), found.state) == ({"1": 100}, pb.Endpoint.READY)
    await shared.settled("abort")


async def test_a_rollback_that_ended_a_shift_does_nothing_more_when_it_is_asked_again(shared: ServingPlatform) -> None:
    """Its answer was lost, say. There is no shift any more, but a model that was served before."""
    await shared.served("again", shared.model(2.0))
    second = await shared.served("again", shared.model(3.0))
    made = await shared.deploy("again", shared.model(4.0), 50, 100, hold=600.0)
    await shared.wait_for(made.name, pb.Revision.SHIFTING)
    request = pb.RollbackEndpointRequest(name=f"projects/{PROJECT}/endpoints/again", request_id="once")
    assert (await shared.stub().RollbackEndpoint(request)).name == second.name
    await shared.wait_for(made.name, pb.Revision.FAILED)
    assert (await shared.stub().RollbackEndpoint(request)).name == second.name
    listed = await shared.stub().ListRevisions(pb.ListRevisionsRequest(parent=request.name))
    assert [revision.number for revision in listed.revisions] == [3, 2, 1]
    assert (await shared.endpoint("again")).state == pb.Endpoint.READY
    other = pb.RollbackEndpointRequest(name=request.name, request_id="twice")
    assert (await shared.stub().RollbackEndpoint(other)).number == 4


async def test_deploys_wait_for_each_other_in_order(shared: ServingPlatform) -> None:
    made = [await shared.deploy("queue", shared.model(float(n))) for n in (2, 3, 4)]
    await shared.wait_for(made[2].name)
    ready = [event for event in await shared.events("queue") if event["type"] == "serving.revision.ready"]
    assert [event["data"]["revision"] for event in ready] == [revision.name for revision in made]


async def test_two_endpoints_of_one_name_in_two_projects_never_meet(shared: ServingPlatform) -> None:
    ours, theirs = shared.model(2.0), shared.model(5.0, project="audio")
    await asyncio.gather(shared.served("twin", ours), shared.served("twin", theirs))
    assert (await shared.predict("twin"))[1]["outputs"][0]["data"] == [2.0]
    status, body, prediction = await shared.predict("twin", "audio")
    assert status == 200 and body["outputs"][0]["data"] == [5.0]
    assert prediction.startswith("projects/audio/endpoints/twin/revisions/1/")
    assert {"triton-vision_twin_1", "triton-audio_twin_1"} <= set(shared.tritons())


async def test_a_deleted_endpoint_is_gone_and_its_numbers_are_not_used_again(shared: ServingPlatform) -> None:
    await shared.served("gone", shared.model(2.0))
    request = pb.DeleteEndpointRequest(name=f"projects/{PROJECT}/endpoints/gone")
    await shared.stub().DeleteEndpoint(request)
    everything = pb.ListEndpointsRequest(parent=f"projects/{PROJECT}")

    async def is_gone() -> bool:
        return request.name not in [found.name for found in (await shared.stub().ListEndpoints(everything)).endpoints]

    await until(is_gone)
    assert (await shared.predict("gone"))[0] == 404
    assert shared.tritons_of("gone") == [] and not (shared.home / "serving" / PROJECT / "gone" / "1").exists()
    again = await shared.served("gone", shared.model(3.0))
    assert again.number == 2
    assert (await shared.predict("gone"))[2].startswith(f"{again.name}/predictions/")
