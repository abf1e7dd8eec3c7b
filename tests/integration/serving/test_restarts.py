"""Promise: a restart brings what is in line with what is wanted, from wherever the one before died."""

from __future__ import annotations

import asyncio

import pytest

from penstock.algorithms.model_format import ModelCard
from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.backing.process import ManagedProcess
from penstock.edge import Member
from services.serving import rollout, transitions, verification
from services.serving.model import Endpoint
from tests.integration.serving.kills import Kills
from tests.support.prediction_load import Load, until
from tests.support.serving_platform import PROJECT, ServingPlatform

NAME = f"projects/{PROJECT}/endpoints/scale"
HOLD = 0.1


async def is_final(platform: ServingPlatform, revision: int) -> bool:
    """Whether only that revision serves, and nothing is left of the others."""
    document = await platform.database.collection("endpoints").find_one({"_id": NAME})
    value = document["value"] if document else {}
    settled = value.get("serving") == revision and value["observed"] == value["generation"]
    return settled and all(known["clean"] or known["number"] == revision for known in value["revisions"])


async def check_final(platform: ServingPlatform, revision: int, factor: float) -> None:
    """The final state is that of a run without faults."""
    found = await platform.endpoint("scale")
    assert dict(found.weights) == {str(revision): 100} and found.state == pb.Endpoint.READY
    assert platform.tritons_of("scale") == [f"triton-{PROJECT}_scale_{revision}"]
    edge = platform.instances[-1].serving.reconciler._traffic.edge
    assert edge.revision_clusters(PROJECT, "scale") == {revision}
    assert await edge.generation(PROJECT, "scale") == found.generation
    assert (await platform.predict("scale"))[1]["outputs"][0]["data"] == [factor]
    assert [path.name for path in (platform.home / "serving" / PROJECT / "scale").iterdir()] == [str(revision)]


def check_answers(load: Load) -> None:
    """Nothing failed, and each revision answered as its own model does."""
    assert load.failures == []
    assert {(factor, revision) for factor, revision in load.answers if factor != revision} == set()


@pytest.mark.timeout(400)
async def test_a_kill_at_every_step_ends_in_the_same_state(
    platform: ServingPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "SETTLE_SECONDS", 0.1)
    kills, instance, faultless = Kills(monkeypatch), await platform.start(), 0
    await platform.served("scale", platform.model(1.0))
    async with platform.load("scale", clients=1) as load:
        revision = 1
        while revision == 1 or revision - 2 < faultless:
            revision += 1
            step = revision - 2  # the first one only counts
            made = await platform.deploy("scale", platform.model(float(revision)), 50, 100, hold=HOLD)
            assert made.number == revision
            await instance.kill()
            with kills.kill_at(step, carried_out=bool(step % 2)):
                instance = await platform.start()
                await until(lambda number=revision: kills.dead.is_set() or is_final(platform, number))  # type: ignore[misc]
                await instance.kill()
            assert kills.dead.is_set() == bool(step)
            if not step:
                faultless = kills.count
            instance = await platform.start()
            await until(lambda number=revision: is_final(platform, number))  # type: ignore[misc]
            await check_final(platform, revision, float(revision))
        assert step == faultless >= 18
    check_answers(load)
    await check_events(platform, revision)


async def test_a_kill_before_and_after_each_write_in_one_shift(
    platform: ServingPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No instance lives for longer than one write of the store, so none can rely on what it remembers."""
    monkeypatch.setattr(rollout, "SETTLE_SECONDS", 0.1)
    kills, instance = Kills(monkeypatch, edge=False), await platform.start()
    await platform.served("scale", platform.model(1.0))
    async with platform.load("scale", clients=1) as load:
        await platform.deploy("scale", platform.model(2.0), 50, 100, hold=HOLD)
        await instance.kill()
        died = 0
        while not await is_final(platform, 2):
            with kills.kill_at(1, carried_out=bool(died % 2)):
                instance = await platform.start()
                await until(lambda: kills.dead.is_set() or is_final(platform, 2))
                await instance.kill()
            died += kills.dead.is_set()
        await platform.start()
        await check_final(platform, 2, 2.0)
    check_answers(load)
    assert died >= 2 * 9
    await check_events(platform, 2)


async def check_events(platform: ServingPlatform, revisions: int) -> None:
    """Every revision became ready once, after the one before."""
    events = [event for event in await platform.events("scale") if event["type"] == "serving.revision.ready"]
    names = [f"{NAME}/revisions/{number}" for number in range(1, revisions + 1)]
    assert [event["data"]["revision"] for event in events] == names
    assert [event["data"].get("previous", "") for event in events] == ["", *names[:-1]]


async def test_a_model_server_that_is_killed_comes_back(platform: ServingPlatform) -> None:
    await platform.start()
    await platform.served("scale", platform.model(1.0))
    process = f"triton-{PROJECT}_scale_1"
    facts = platform.tritons()[process].facts
    pid = platform.kill_triton(process)
    async with platform.load("scale", clients=1) as load:
        await until(lambda: bool(load.answers))
    assert platform.tritons()[process].identity.pid != pid
    assert platform.tritons()[process].facts["http_port"] == facts["http_port"]
    assert load.factors == {1.0} and all(text.startswith("503") for text in load.failures)
    found = await platform.endpoint("scale")
    assert found.state == pb.Endpoint.READY and dict(found.weights) == {"1": 100}
    assert [event["type"] for event in await platform.events("scale")].count("serving.traffic.changed") == 1


async def test_a_model_server_that_comes_back_answers_its_examples_before_it_gets_traffic(
    platform: ServingPlatform,
) -> None:
    """Its files were exchanged on the disk while it was gone: they are fetched again."""
    instance = await platform.start()
    await platform.served("scale", platform.model(1.0))
    await instance.kill()
    other = platform.model(7.0)
    assert other
    copy = platform.home / "serving" / PROJECT / "scale" / "1" / "model" / "model.onnx"
    copy.unlink()
    copy.write_bytes((platform.home / "made" / "2" / "model.onnx").read_bytes())
    platform.kill_triton(f"triton-{PROJECT}_scale_1")
    async with platform.load("scale", clients=1) as load:
        await platform.start()
        await until(lambda: bool(load.answers))
        await load.more(5)
    assert load.factors == {1.0}


async def test_a_model_server_that_came_back_gets_nothing_before_it_answered_its_examples(
    platform: ServingPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens where it did, with the right model, and nobody else is there to ask."""
    await platform.start()
    await platform.served("scale", platform.model(1.0))
    real, refused, allowed = verification.check, 0, False

    def check(card: ModelCard, status: int, text: str, where: str) -> None:
        nonlocal refused
        if not allowed:
            refused += 1
            raise verification.WrongAnswers("not yet")
        real(card, status, text, where)

    monkeypatch.setattr(verification, "check", check)
    platform.kill_triton(f"triton-{PROJECT}_scale_1")
    async with platform.load("scale", clients=1) as load:
        await until(lambda: refused > 0)
        load.answers.clear()  # of the moment before the kill
        await load.more(50)
        assert load.answers.total() == 0 and refused > 0
        allowed = True
        await until(lambda: bool(load.answers))
    assert all(text.startswith("503") for text in load.failures)


async def test_a_killed_service_disturbs_no_prediction_and_its_heir_adopts_what_runs(
    platform: ServingPlatform,
) -> None:
    instance = await platform.start()
    await platform.served("scale", platform.model(1.0))
    async with platform.load("scale") as load:
        await load.more()
        await instance.kill()
        await load.more()
        await platform.start()
        await platform.served("scale", platform.model(2.0), 50, 100, hold=HOLD)
        await load.more()
    check_answers(load)
    assert load.revisions == {1, 2}


async def test_a_model_server_that_dies_during_its_shift_comes_back_and_serves(platform: ServingPlatform) -> None:
    await platform.start()
    await platform.served("scale", platform.model(1.0))
    async with platform.load("scale", clients=1) as load:
        made = await platform.deploy("scale", platform.model(2.0), 50, 100, hold=1.0)
        await platform.wait_for(made.name, pb.Revision.SHIFTING)
        platform.kill_triton(f"triton-{PROJECT}_scale_2")
        await platform.wait_for(made.name)
    check_answers(load)


async def test_what_serves_answers_on_when_a_revision_dies_just_as_it_is_given_everything(
    platform: ServingPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    await platform.start()
    await platform.served("scale", platform.model(1.0))
    real, killed = transitions.advance, asyncio.Event()

    def advance(endpoint: Endpoint, number: int, step: int) -> Endpoint:
        process = platform.tritons()[f"triton-{PROJECT}_scale_{number}"]
        process.stop(0)
        killed.set()
        return real(endpoint, number, step)

    monkeypatch.setattr(transitions, "advance", advance)
    async with platform.load("scale") as load:
        made = await platform.deploy("scale", platform.model(2.0), 50, 100, hold=HOLD)
        await killed.wait()
        await platform.wait_for(made.name)
    check_answers(load)


async def test_strays_are_removed(platform: ServingPlatform) -> None:
    instance = await platform.start()
    await platform.served("scale", platform.model(1.0))
    await instance.kill()
    edge = instance.serving.reconciler._traffic.edge
    edge.set_endpoint(PROJECT, "stray", [Member(1, 1, 2)])
    stray = instance.serving.reconciler._instances
    artifact = platform.training._versions[platform.model(3.0)].artifact
    await stray.start(f"projects/{PROJECT}/endpoints/stray", 1, artifact)
    process = ManagedProcess.adopt(platform.home, f"triton-{PROJECT}_stray_1")
    assert process is not None
    await platform.start()
    await until(lambda: edge.endpoints() == {(PROJECT, "scale")})
    assert not process.alive() and list(platform.tritons()) == [f"triton-{PROJECT}_scale_1"]
    assert not (platform.home / "serving" / PROJECT / "stray" / "1").exists()


async def test_an_envoy_that_is_started_again_knows_the_endpoints(platform: ServingPlatform) -> None:
    await platform.start()
    await platform.served("scale", platform.model(1.0))
    made = await platform.deploy("scale", platform.model(2.0), 50, 100, hold=1.0)
    await platform.wait_for(made.name, pb.Revision.SHIFTING)
    await platform.envoy.stop(grace=0)
    await asyncio.sleep(0.3)
    await platform.envoy.start(attached=True)
    assert (await platform.predict("scale"))[0] == 200
    await platform.wait_for(made.name)


async def test_after_everything_was_down_model_servers_come_back_before_the_edge_does(
    platform: ServingPlatform,
) -> None:
    instance = await platform.start()
    await platform.served("scale", platform.model(1.0))
    await instance.kill()
    await platform.envoy.stop(grace=0)
    platform.kill_triton(f"triton-{PROJECT}_scale_1")
    await platform.start()

    async def resumed() -> bool:
        document = await platform.database.collection("endpoints").find_one({"_id": NAME})
        value = document["value"] if document else {}
        return value.get("generation") == 3 and not value["suspended"]

    await until(resumed)
    await platform.envoy.start(attached=True)
    await until(lambda: is_final(platform, 1))
    assert (await platform.predict("scale"))[1]["outputs"][0]["data"] == [1.0]
