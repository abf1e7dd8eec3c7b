"""Traffic comes to a revision step by step, while clients without retries ask without pause: none fails."""

from __future__ import annotations

import time

from penstock.api.serving.v1 import serving_service_pb2 as pb
from tests.support.serving_platform import ServingPlatform


async def test_a_first_revision_answers_through_the_edge_with_a_prediction_name(platform: ServingPlatform) -> None:
    await platform.start()
    began = time.monotonic()
    made = await platform.deploy("scale", platform.model(2.0))
    done = await platform.wait_for(made.name)
    print(f"deploy to serving with [100]: {time.monotonic() - began:.2f} s")
    assert (done.number, done.weight) == (1, 100)
    status, body, prediction = await platform.predict("scale", x=3.0)
    assert status == 200 and body["outputs"][0]["data"] == [6.0]
    assert prediction.startswith(f"{made.name}/predictions/")


async def test_a_shift_fails_no_request(platform: ServingPlatform) -> None:
    await platform.start()
    await platform.served("scale", platform.model(2.0))
    async with platform.load("scale") as load:
        await load.more()
        began = time.monotonic()
        made = await platform.deploy("scale", platform.model(3.0), 10, 100, hold=1.0)
        await platform.wait_for(made.name)
        print(f"deploy to serving with [10, 100], hold 1 s: {time.monotonic() - began:.2f} s")
        old = f"projects/vision/endpoints/scale/revisions/1"
        await platform.wait_for(old, pb.Revision.REMOVED)
        await load.more()
    assert load.failures == []
    assert set(load.answers) == {(2.0, 1), (3.0, 2)}
    assert list(platform.tritons()) == ["triton-vision_scale_2"]
