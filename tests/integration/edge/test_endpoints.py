"""Predictions through the edge: which endpoint, which revision, which name, and what of Triton is out of reach."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from penstock import names
from penstock.edge import PREDICTION_HEADER
from tests.integration.edge.conftest import ModelServer, Platform

pytestmark = pytest.mark.asyncio(loop_scope="module")
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
INFER = "/v2/models/clf/infer"


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def served(platform: Platform, model_server: Callable[..., ModelServer]) -> AsyncIterator[None]:
    """Endpoint clf in two projects: alpha's revision 1, beta's revision 2; revision 3 is alpha's, pinned only."""
    servers = [model_server(number) for number in (1, 2, 3)]
    for project, server in (("alpha", servers[0]), ("beta", servers[1])):
        await platform.edge.applied(project, "clf", platform.edge.set_endpoint(project, "clf", [server.member()]))
    platform.edge.set_revision_cluster("alpha", "clf", servers[2].member())
    await platform.edge.revision_applied("alpha", "clf", 3)
    yield


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(model: str = "clf", **more: Any) -> Any:
    return service_pb2.ModelInferRequest(model_name=model, **more)


async def predict(
    http: aiohttp.ClientSession, platform: Platform, path: str = INFER, **headers: str
) -> tuple[str, Any]:
    """Who answered, and the response."""
    async with http.post(platform.url + path, json={"inputs": []}, headers=headers) as response:
        body = await response.json()
        return body.get("id", ""), response


async def test_a_prediction_has_a_name_of_its_own(platform: Platform, http: aiohttp.ClientSession, stub: Any) -> None:
    seen = set()
    for _ in range(3):
        _, response = await predict(http, platform, **platform.headers())
        seen.add(response.headers[PREDICTION_HEADER])
        call = stub.ModelInfer(request(), metadata=platform.metadata())
        await call
        seen.add(dict(await call.initial_metadata())[PREDICTION_HEADER])
    assert len(seen) == 6
    for name in seen:
        assert re.fullmatch(f"projects/alpha/endpoints/clf/revisions/1/predictions/{UUID}", name)
        assert names.parse(name).kind == "prediction"


async def test_a_client_cannot_choose_the_name(platform: Platform, http: aiohttp.ClientSession) -> None:
    mine = {"x-request-id": "11111111-1111-1111-1111-111111111111", PREDICTION_HEADER: "mine"}
    _, response = await predict(http, platform, **platform.headers(), **mine)
    assert "1111-1111" not in response.headers[PREDICTION_HEADER]
    assert response.headers[PREDICTION_HEADER].endswith(response.headers["x-request-id"])


async def test_only_predictions_are_named(platform: Platform, http: aiohttp.ClientSession, stub: Any) -> None:
    async with http.get(f"{platform.url}/v2/models/clf", headers=platform.headers()) as response:
        assert response.status == 200
        assert PREDICTION_HEADER not in response.headers
    call = stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="clf"), metadata=platform.metadata())
    assert (await call).platform == "r1"
    assert PREDICTION_HEADER not in dict(await call.initial_metadata())


async def test_endpoints_of_one_name_in_two_projects_never_meet(
    platform: Platform, http: aiohttp.ClientSession, stub: Any
) -> None:
    for project, label in (("alpha", "r1"), ("beta", "r2")):
        assert (await predict(http, platform, **platform.headers(project)))[0] == label
        assert (await stub.ModelInfer(request(), metadata=platform.metadata(project))).id == label


async def test_the_platforms_token_names_the_project_in_the_path(
    platform: Platform, http: aiohttp.ClientSession
) -> None:
    home = platform.headers("alpha", platform=True)
    for project, label in (("alpha", "r1"), ("beta", "r2")):
        who, response = await predict(http, platform, f"/v1/projects/{project}{INFER}", **home)
        assert who == label
        assert response.headers[PREDICTION_HEADER].startswith(f"projects/{project}/endpoints/clf/")
    assert (await predict(http, platform, f"/v1/projects/alpha{INFER}", **platform.headers("alpha")))[0] == "r1"
    assert (await predict(http, platform, f"/v1/projects/beta{INFER}", **platform.headers("alpha")))[1].status == 403


@pytest.mark.parametrize(
    "name", ["nope", "clf/3", "clf/3/grpc", "../clf", "Clf", "clf ", "", "-", "service/demo", "clf\x00", "a" * 500]
)
async def test_an_unknown_endpoint_is_not_found(
    platform: Platform, http: aiohttp.ClientSession, stub: Any, name: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request(name), metadata=platform.metadata())
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "no such endpoint in project 'alpha'" in str(caught.value.details())


async def test_an_unknown_endpoint_is_not_found_by_rest(platform: Platform, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{platform.url}/v2/models/nope/infer", json={}, headers=platform.headers()) as response:
        assert response.status == 404
        assert await response.json() == {"error": "There is no such endpoint in project 'alpha': 'nope'"}
        assert PREDICTION_HEADER not in response.headers


async def test_only_a_service_can_pin_a_revision(platform: Platform, http: aiohttp.ClientSession, stub: Any) -> None:
    pin = {"x-penstock-revision": "3"}
    for role, label in (("service", "r3"), ("admin", "r1"), ("viewer", "r1")):
        who, response = await predict(http, platform, **platform.headers(role=role), **pin)
        assert who == label
        assert f"/revisions/{label[1:]}/" in response.headers[PREDICTION_HEADER]
        metadata = [*platform.metadata(role=role), *pin.items()]
        assert (await stub.ModelInfer(request(), metadata=metadata)).id == label
    assert (await predict(http, platform, **platform.headers(platform=True), **pin))[0] == "r1"


async def test_a_pin_to_a_revision_that_is_not_there_is_not_found(
    platform: Platform, http: aiohttp.ClientSession
) -> None:
    _, response = await predict(http, platform, **platform.headers(role="service"), **{"x-penstock-revision": "9"})
    assert response.status == 404


async def test_a_removed_endpoint_is_not_found(platform: Platform, http: aiohttp.ClientSession) -> None:
    edge = platform.edge
    member = next(iter(edge.addresses("alpha", "clf", 1)))
    assert member[0] == "127.0.0.1"
    server = ModelServer(1)
    server.http_port = server.grpc_port = member[1]
    edge.set_endpoint("alpha", "gone", [server.member()])
    edge.set_revision_cluster("alpha", "gone", server.member())
    await edge.applied("alpha", "gone", 1)
    edge.remove_endpoint("alpha", "gone")
    edge.remove_endpoint("alpha", "gone")
    await edge.removed("alpha", "gone")
    assert ("alpha", "gone") not in edge.endpoints()
    assert (await predict(http, platform, "/v2/models/gone/infer", **platform.headers()))[1].status == 404
    assert (await predict(http, platform, **platform.headers()))[0] == "r1"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository/index",
        "/v2/repository/models/clf/unload",
        "/v2/models/clf/stats",
        "/v2/models/stats",
        "/v2/models/clf/trace/setting",
        "/v2/trace/setting",
        "/v2/logging",
        "/v2/systemsharedmemory/status",
        "/v2/systemsharedmemory/region/x/register",
        "/v2/cudasharedmemory/status",
        "/v2/models/clf/versions/1/infer",
        "/metrics",
        "/stats/prometheus",
        "/config_dump",
    ],
)
async def test_what_controls_a_server_is_out_of_reach(
    platform: Platform, http: aiohttp.ClientSession, path: str
) -> None:
    for method in ("GET", "POST"):
        async with http.request(method, platform.url + path, headers=platform.headers(role="admin")) as response:
            assert response.status == 404, await response.text()


CONTROL = [
    method.name
    for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    if not method.name.startswith(("ModelInfer", "ModelReady", "ModelMeta", "ModelConfig", "Server"))
]


@pytest.mark.parametrize("method", CONTROL)
async def test_what_controls_a_server_is_out_of_reach_by_grpc(
    platform: Platform, channel: grpc.aio.Channel, method: str
) -> None:
    call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(request().SerializeToString(), metadata=platform.metadata(role="admin"))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_large_bodies_pass(platform: Platform, http: aiohttp.ClientSession, stub: Any) -> None:
    large = b"x" * (12 << 20)
    answer = await stub.ModelInfer(request(raw_input_contents=[large]), metadata=platform.metadata())
    assert answer.id == "r1"
    body = b'{"inputs": ["' + large + b'"]}'
    headers = platform.headers() | {"content-type": "application/json"}
    async with http.post(platform.url + INFER, data=body, headers=headers) as response:
        assert response.status == 200


async def test_a_body_that_is_too_large_is_refused(platform: Platform, stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(request(raw_input_contents=[b"x" * (40 << 20)]), metadata=platform.metadata())
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "limits are exceeded" in str(caught.value.details())


async def test_a_client_cannot_steer_the_edge(platform: Platform, http: aiohttp.ClientSession) -> None:
    steer = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-upstream-alt-stat-name": "x", "x-envoy-max-retries": "0"}
    who, response = await predict(http, platform, f"{INFER}?sleep=0.2", **platform.headers(), **steer)
    assert (who, response.status) == ("r1", 200)


async def test_the_stock_triton_clients_work(platform: Platform) -> None:
    def by_http() -> str:
        headers = platform.headers()
        with triton_http.InferenceServerClient(platform.address) as client:
            assert client.is_server_live(headers=headers) and client.is_server_ready(headers=headers)
            assert client.get_server_metadata(headers=headers)["name"] == "penstock"
            assert client.is_model_ready("clf", headers=headers)
            with pytest.raises(InferenceServerException, match="no such endpoint"):
                client.get_model_metadata("nope", headers=headers)
            with pytest.raises(InferenceServerException, match="token"):
                client.get_server_metadata()
            return str(client.infer("clf", [], headers=headers).get_response()["id"])

    def by_grpc() -> str:
        headers = platform.headers()
        with triton_grpc.InferenceServerClient(platform.address) as client:
            assert client.is_server_live(headers=headers) and client.is_server_ready(headers=headers)
            assert client.get_server_metadata(headers=headers).name == "penstock"
            assert client.is_model_ready("clf", headers=headers)
            with pytest.raises(InferenceServerException, match="no such endpoint"):
                client.get_model_metadata("nope", headers=headers)
            with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                client.get_server_metadata()
            return str(client.infer("clf", [], headers=headers).get_response().id)

    assert await asyncio.to_thread(by_http) == "r1"
    assert await asyncio.to_thread(by_grpc) == "r1"
