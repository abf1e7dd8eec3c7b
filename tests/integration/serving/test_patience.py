"""How long a revision may be in trouble, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.errors import Unavailable
from services.serving import rollout
from services.serving.instances import Instances
from services.serving.verification import Verifier
from tests.support.prediction_load import until
from tests.support.serving_platform import PROJECT, ServingPlatform

pytestmark = pytest.mark.asyncio(loop_scope="module")


def out_of_order(real: Callable[..., Any], times: int) -> Callable[..., Any]:
    """The first calls do not get through."""
    left = times

    async def call(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Unavailable("not now")
        return await real(*arguments)

    return call


async def test_patience_is_with_one_trouble_at_a_time(shared: ServingPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton did not answer while it started, the edge much later did not: between them all was well."""
    monkeypatch.setattr(rollout, "PATIENCE_SECONDS", 0.1)  # less than the time to the next try
    monkeypatch.setattr(Instances, "start", out_of_order(Instances.start, 1))
    monkeypatch.setattr(Verifier, "compare_at_edge", out_of_order(Verifier.compare_at_edge, 1))
    await shared.served("patient", shared.model(2.0))


async def test_a_trouble_that_stays_is_the_end(shared: ServingPlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(Verifier, "compare_at_edge", out_of_order(Verifier.compare_at_edge, 10**6))
    made = await shared.deploy("impatient", shared.model(2.0))
    assert (await shared.wait_for(made.name, pb.Revision.FAILED)).reason == "not now"


async def test_nothing_is_remembered_of_revisions_and_endpoints_that_are_gone(shared: ServingPlatform) -> None:
    remembered = shared.instances[-1].serving.reconciler._rollout
    name = f"projects/{PROJECT}/endpoints/kept"

    def numbers() -> set[int]:
        return {number for endpoint, number in remembered._notes if endpoint == name}

    await shared.served("kept", shared.model(2.0))
    await shared.served("kept", shared.model(3.0), 50, 100, hold=0.1)
    failed = await shared.deploy("kept", shared.model(3.0, examples_of=4.0))
    await shared.wait_for(failed.name, pb.Revision.FAILED)
    assert 2 in numbers()
    await until(lambda: numbers() == {2})
    await shared.stub().DeleteEndpoint(pb.DeleteEndpointRequest(name=name))
    await until(lambda: not numbers() and name not in remembered._checked)
