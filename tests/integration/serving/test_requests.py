"""What the API takes and refuses, with the field's name, and what it lists."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PenstockError,
    PermissionDenied,
)
from services.serving import transitions
from services.serving.instances import find_or_explain
from tests.support.prediction_load import until
from tests.support.serving_platform import PROJECT, ServingPlatform

pytestmark = pytest.mark.asyncio(loop_scope="module")
ENDPOINT = f"projects/{PROJECT}/endpoints/asked"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"steps": [50]}, "steps"),
        ({"steps": [50, 10, 100]}, "steps"),
        ({"steps": [0, 100]}, "steps"),
        ({"steps": [50, 50, 100]}, "steps"),
        ({"steps": [50, 101]}, "steps"),
        ({"hold": Duration(nanos=1000)}, "hold"),
        ({"hold": Duration(seconds=3601)}, "hold"),
        ({"hold": Duration(seconds=-1)}, "hold"),
        ({"name": "projects/vision/models/m"}, "name"),
        ({"name": "projects/vision/endpoints/Not-An-Id"}, "name"),
        ({"model_version": "digits@1"}, "model_version"),
        ({"request_id": "not printable\n"}, "request_id"),
    ],
)
async def test_a_wrong_request_is_refused_with_its_field(
    shared: ServingPlatform, change: dict[str, Any], field: str
) -> None:
    request = {"name": ENDPOINT, "model_version": f"projects/{PROJECT}/models/scale/versions/1", **change}
    with pytest.raises(InvalidArgument) as caught:
        await shared.stub().DeployModel(pb.DeployModelRequest(**request))
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_an_endpoint_serves_models_of_its_own_project(shared: ServingPlatform) -> None:
    request = pb.DeployModelRequest(name=ENDPOINT, model_version=shared.model(2.0, project="audio"))
    with pytest.raises(PermissionDenied):
        await shared.stub().DeployModel(request)
    with pytest.raises(InvalidArgument, match="its own project"):
        await shared.stub(platform=True).DeployModel(request)


async def test_what_does_not_exist_is_not_found(shared: ServingPlatform) -> None:
    stub = shared.stub()
    with pytest.raises(NotFound) as caught:
        await shared.deploy("asked", f"projects/{PROJECT}/models/none/versions/1")
    assert caught.value.violations[0].field == "model_version"
    for call in (
        stub.GetEndpoint(pb.GetEndpointRequest(name=ENDPOINT)),
        stub.RollbackEndpoint(pb.RollbackEndpointRequest(name=ENDPOINT)),
        stub.DeleteEndpoint(pb.DeleteEndpointRequest(name=ENDPOINT)),
        stub.ListRevisions(pb.ListRevisionsRequest(parent=ENDPOINT)),
        stub.GetRevision(pb.GetRevisionRequest(name=f"{ENDPOINT}/revisions/1")),
    ):
        with pytest.raises(NotFound):
            await call


async def test_without_triton_a_deployment_says_what_to_do(shared: ServingPlatform) -> None:
    real, shared.environment = shared.environment, lambda: find_or_explain(None)
    try:
        with pytest.raises(FailedPrecondition, match="penstock setup"):
            await shared.deploy("asked", shared.model(2.0))
    finally:
        shared.environment = real
    with pytest.raises(NotFound):
        await shared.endpoint("asked")


async def test_a_viewer_looks_and_others_do_not(shared: ServingPlatform) -> None:
    version = shared.model(2.0)
    with pytest.raises(PermissionDenied):
        await shared.deploy("asked", version, stub=shared.stub("viewer"))
    with pytest.raises(PenstockError):
        await shared.deploy("asked", version, stub=shared.stub(project="audio"))
    listed = await shared.stub("viewer").ListEndpoints(pb.ListEndpointsRequest(parent=f"projects/{PROJECT}"))
    assert ENDPOINT not in [endpoint.name for endpoint in listed.endpoints]


async def test_the_same_request_makes_one_revision(shared: ServingPlatform) -> None:
    version = shared.model(2.0)
    made = [await shared.deploy("once", version, request_id="r1") for _ in range(3)]
    assert {revision.number for revision in made} == {1}
    await shared.wait_for(made[0].name)
    with pytest.raises(AlreadyExists, match="request id was used for something else"):
        await shared.deploy("once", shared.model(3.0), request_id="r1")
    assert (await shared.deploy("once", version, request_id="r2")).number == 2
    await shared.wait_for(f"projects/{PROJECT}/endpoints/once/revisions/2")


async def test_revisions_are_listed_newest_first_however_old(
    shared: ServingPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transitions, "KEPT", 3)
    served = await shared.served("many", shared.model(2.0))
    bad = shared.model(3.0)
    shared.training._versions[bad].artifact = "sha256:" + "0" * 64
    failed = [await shared.deploy("many", bad, request_id=f"r{n}") for n in range(6)]
    endpoint = served.name.rpartition("/revisions/")[0]
    database = shared.database.collection("endpoints")

    async def archived() -> bool:
        document = await database.find_one({"_id": endpoint})
        return document is not None and len(document["value"]["revisions"]) == 3

    await until(archived)
    stub, found, token = shared.stub(), [], ""
    while True:
        request = pb.ListRevisionsRequest(parent=endpoint, page_size=2, page_token=token)
        page = await stub.ListRevisions(request)
        found += page.revisions
        token = page.next_page_token
        if not token:
            break
    assert [revision.number for revision in found] == [7, 6, 5, 4, 3, 2, 1]
    assert [revision.state for revision in found] == [pb.Revision.FAILED] * 6 + [pb.Revision.SERVING]
    old = await shared.revision(failed[0].name)
    assert old == found[5] and "0000" in old.reason and old.hold.seconds == 5
    assert (await shared.deploy("many", bad, request_id="r0")).name == failed[0].name


async def test_watching_begins_with_what_is_and_ends_when_it_serves(shared: ServingPlatform) -> None:
    made = await shared.served("watched", shared.model(2.0))
    watch = shared.stub().WatchRevision(pb.WatchRevisionRequest(name=made.name))
    assert [revision.state async for revision in watch] == [pb.Revision.SERVING]
