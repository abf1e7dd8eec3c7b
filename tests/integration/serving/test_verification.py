"""Promise: a model that does not load, or answers its own examples wrongly, never takes traffic from one that works."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.api.serving.v1 import serving_service_pb2 as pb
from services.serving import verification
from tests.support.prediction_load import Load
from tests.support.served_models import scaling_model, write_card
from tests.support.serving_platform import PROJECT, ServingPlatform

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def deploy_bad(shared: ServingPlatform, endpoint: str, version: str) -> tuple[pb.Revision, Load]:
    """Deploy it over one that works, under load, until it failed and nothing is left of it."""
    good = await shared.served(endpoint, shared.model(2.0))
    async with shared.load(endpoint) as load:
        made = await shared.deploy(endpoint, version, 50, 100, hold=0.1)
        failed = await shared.wait_for(made.name, pb.Revision.FAILED)
        await load.more()
        await shared.settled(endpoint)
    found = await shared.endpoint(endpoint)
    assert (found.state, found.revision, found.generation) == (pb.Endpoint.READY, good.name, 1)
    event = (await shared.events(endpoint))[-1]
    assert event["type"] == "serving.revision.failed"
    assert event["data"]["reason"] == failed.reason and event["data"]["revision"] == failed.name
    return failed, load


async def test_a_model_that_answers_its_examples_wrongly_gets_no_traffic(shared: ServingPlatform) -> None:
    failed, load = await deploy_bad(shared, "wrong", shared.model(3.0, examples_of=4.0))
    assert load.failures == [] and set(load.answers) == {(2.0, 1)}
    assert "output y of example 0: 3.0 instead of 4.0" in failed.reason
    assert failed.weight == 0 and failed.step == 0


async def test_without_the_comparison_the_wrong_model_takes_the_traffic(
    shared: ServingPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above."""
    monkeypatch.setattr(verification, "check", lambda *_: None)
    await shared.served("credulous", shared.model(2.0))
    await shared.served("credulous", shared.model(3.0, examples_of=4.0))
    assert (await shared.predict("credulous"))[1]["outputs"][0]["data"] == [3.0]


async def test_a_model_that_answers_rightly_only_when_asked_directly_gets_no_traffic(
    shared: ServingPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verification.check

    def check(card: Any, status: int, text: str, where: str) -> None:
        real(card, status, text.replace("3.0", "9.0") if where else text, where)

    monkeypatch.setattr(verification, "check", check)
    failed, load = await deploy_bad(shared, "twofaced", shared.model(3.0))
    assert "wrongly through the edge: output y of example 0: 9.0 instead of 3.0" in failed.reason
    assert load.revisions == {1}


async def test_a_model_that_does_not_load_gets_no_traffic(shared: ServingPlatform) -> None:
    folder = scaling_model(shared.home / "broken", 3.0)
    (folder / "model.onnx").write_bytes(b"not a model")
    write_card(folder, 3.0)
    failed, load = await deploy_bad(shared, "broken", shared.training.add(PROJECT, "broken", folder))
    assert load.failures == [] and load.revisions == {1}
    assert failed.reason.startswith("Triton cannot load the model: ") and "INVALID_PROTOBUF" in failed.reason


async def test_a_model_whose_file_was_changed_after_its_run_gets_no_traffic(shared: ServingPlatform) -> None:
    folder = scaling_model(shared.home / "tampered", 3.0)
    other = scaling_model(shared.home / "other", 4.0)
    (folder / "model.onnx").write_bytes((other / "model.onnx").read_bytes())
    failed, _ = await deploy_bad(shared, "tampered", shared.training.add(PROJECT, "tampered", folder))
    assert "model.onnx" in failed.reason and "changed after the run" in failed.reason


async def test_a_model_whose_object_is_damaged_or_lost_gets_no_traffic(shared: ServingPlatform) -> None:
    version = shared.model(3.0)
    artifact = shared.training._versions[version].artifact
    damaged = next((shared.home / "objects").rglob(f"*{artifact.removeprefix('sha256:')[-50:]}"))
    damaged.chmod(0o600)
    damaged.write_bytes(b"{}")
    failed, _ = await deploy_bad(shared, "damaged", version)
    assert artifact in failed.reason
    version = shared.model(5.0)
    shared.training._versions[version].artifact = "sha256:" + "0" * 64
    again = await shared.deploy("damaged", version)
    assert "0000" in (await shared.wait_for(again.name, pb.Revision.FAILED)).reason


async def test_after_a_failure_the_next_deploy_goes_on(shared: ServingPlatform) -> None:
    bad = await shared.deploy("mended", shared.model(3.0, examples_of=4.0))
    good = await shared.deploy("mended", shared.model(5.0))
    await shared.wait_for(good.name)
    assert (await shared.revision(bad.name)).state == pb.Revision.FAILED
    assert (await shared.predict("mended"))[1]["outputs"][0]["data"] == [5.0]
