"""Our own API through the edge: REST from the protos' annotations, streams, gRPC-web, reflection, health, TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock.edge import Tls
from tests.integration.edge.api_server import SERVICE, Request, Thing
from tests.integration.edge.conftest import Platform, free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")
THING = "projects/alpha/things/x"


async def test_rest_is_the_api_in_json(platform: Platform, http: aiohttp.ClientSession) -> None:
    headers = platform.headers()
    async with http.get(f"{platform.url}/v1/{THING}", headers=headers) as response:
        assert response.status == 200
        assert await response.json() == {"name": THING, "displayName": "", "size": 0}
    thing = {"displayName": "Größe", "size": 3}
    async with http.post(f"{platform.url}/v1/projects/alpha/things", json=thing, headers=headers) as response:
        assert await response.json() == {"name": "projects/alpha", "displayName": "Größe", "size": 3}
    async with http.post(f"{platform.url}/v1/{THING}:archive", json={}, headers=headers) as response:
        assert (await response.json())["name"] == THING


async def test_rest_errors_keep_their_details(platform: Platform, http: aiohttp.ClientSession) -> None:
    url = f"{platform.url}/v1/projects/alpha/things/missing"
    async with http.get(url, headers=platform.headers()) as response:
        assert response.status == 404
        body = await response.json()
    assert (body["code"], body["message"]) == (5, "There is no such thing.")
    info, bad = body["details"]
    assert (info["reason"], info["metadata"]) == ("NOT_FOUND", {"thing": "missing"})
    assert bad["fieldViolations"][0]["field"] == "name"


@pytest.mark.parametrize(
    ("project", "token", "status", "code", "reason"),
    [("alpha", False, 401, 16, "UNAUTHENTICATED"), ("beta", True, 403, 7, "PERMISSION_DENIED")],
)
async def test_errors_of_the_edge_itself_look_like_those_of_services(
    platform: Platform, http: aiohttp.ClientSession, project: str, token: bool, status: int, code: int, reason: str
) -> None:
    url = f"{platform.url}/v1/projects/{project}/things/x"
    async with http.get(url, headers=platform.headers() if token else {}) as response:
        assert response.status == status
        body = json_format.ParseDict(await response.json(), status_pb2.Status())
    info = error_details_pb2.ErrorInfo()
    assert body.code == code and body.details[0].Unpack(info)
    assert (info.reason, info.domain) == (reason, "penstock")


async def test_grpc_errors_keep_their_details(platform: Platform, channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary(f"/{SERVICE}/GetThing", Request.SerializeToString, Thing.FromString)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(Request(name="projects/alpha/things/missing"), metadata=platform.metadata())
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "NOT_FOUND"


async def test_what_rest_does_not_know_is_refused(platform: Platform, http: aiohttp.ClientSession) -> None:
    headers = platform.headers()
    async with http.get(f"{platform.url}/v1/{THING}?colour=red", headers=headers) as response:
        assert response.status == 400
        body = await response.json()
        assert body["code"] == 3
        assert "colour" in body["message"]
    async with http.post(f"{platform.url}/v1/projects/alpha/things", data="{", headers=headers) as response:
        assert response.status == 400
    for path in ("/", "/v1", "/v1/projects/alpha/others/x", "/penstock.api.demo.v1.DemoService/GetThing"):
        async with http.get(platform.url + path, headers=headers) as response:
            assert response.status == 404
            assert (await response.json())["code"] == 5


async def test_a_stream_flows_while_it_runs(
    platform: Platform, http: aiohttp.ClientSession, channel: grpc.aio.Channel
) -> None:
    times: list[float] = []
    async with http.get(f"{platform.url}/v1/{THING}:watch", headers=platform.headers()) as response:
        async for line in response.content:
            times.append(time.monotonic())
            assert json.loads(line)["size"] == len(times)
    assert len(times) == 3
    assert times[2] - times[0] > 0.1
    call = channel.unary_stream(f"/{SERVICE}/WatchThing", Request.SerializeToString, Thing.FromString)
    seen = []
    async for thing in call(Request(name=THING), metadata=platform.metadata()):
        seen.append((thing.size, time.monotonic()))
    assert [size for size, _ in seen] == [1, 2, 3]
    assert seen[2][1] - seen[0][1] > 0.1


async def test_grpc_web_works(platform: Platform, http: aiohttp.ClientSession) -> None:
    message = Request(name=THING).SerializeToString()
    frame = struct.pack(">BI", 0, len(message)) + message
    headers = platform.headers() | {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    async with http.post(f"{platform.url}/{SERVICE}/GetThing", data=frame, headers=headers) as response:
        body = await response.read()
    size = struct.unpack(">BI", body[:5])[1]
    assert Thing.FromString(body[5 : 5 + size]).name == THING
    assert b"grpc-status:0" in body[5 + size :].replace(b" ", b"")


def reflect(channel: grpc.aio.Channel, metadata: Any) -> Any:
    """A call that asks for all services."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
    return stub.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=metadata
    )


async def refused_answers(call: Any) -> AsyncIterator[Any]:
    """What came before a call failed."""
    with suppress(grpc.aio.AioRpcError):
        async for answer in call:
            yield answer


async def test_reflection_and_health_need_a_token(platform: Platform, channel: grpc.aio.Channel) -> None:
    answers = [answer async for answer in reflect(channel, platform.metadata())]
    assert SERVICE in {service.name for service in answers[0].list_services_response.service}
    while True:
        refused = reflect(channel, [])
        assert [answer async for answer in refused_answers(refused)] == []
        # A stream that is ended while gRPC's client still sends may be INTERNAL to it.
        if (code := await refused.code()) is not grpc.StatusCode.INTERNAL:
            break
    assert code is grpc.StatusCode.UNAUTHENTICATED
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(), metadata=platform.metadata())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Check(health_pb2.HealthCheckRequest())


async def test_metrics_are_on_the_admin_port_only(platform: Platform, http: aiohttp.ClientSession) -> None:
    async with http.get(f"http://127.0.0.1:{platform.admin_port}/stats/prometheus") as response:
        assert "envoy_http_downstream_rq_total" in await response.text()
    async with http.get(f"{platform.url}/stats/prometheus", headers=platform.headers()) as response:
        assert response.status == 404


async def test_a_service_that_is_down_is_unavailable(platform: Platform, http: aiohttp.ClientSession) -> None:
    api, (nobody,) = f"127.0.0.1:{platform.api.port}", free_ports(1)
    platform.write_base(services={"demo": f"127.0.0.1:{nobody}"})
    try:
        assert (await answered_with(503, platform, http))["code"] == 14
    finally:
        platform.write_base(services={"demo": api})
    await answered_with(200, platform, http)  # it moved back, and Envoy was never restarted


async def answered_with(status: int, platform: Platform, http: aiohttp.ClientSession) -> Any:
    """What is answered once the status is this, which takes Envoy a moment."""
    async with asyncio.timeout(20):
        while True:
            async with http.get(f"{platform.url}/v1/{THING}", headers=platform.headers()) as response:
                if response.status == status:
                    return await response.json()
            await asyncio.sleep(0.02)


def certificate(folder: Path) -> Tls:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    tls = Tls(folder / "edge.crt", folder / "edge.key")
    tls.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    tls.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return tls


async def test_with_a_certificate_it_speaks_tls(
    platform: Platform, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    other = Platform(tmp_path / "envoy", platform.api)
    tls = certificate(tmp_path)
    other.write_base(tls=tls)
    await other.start()
    try:
        trust = ssl.create_default_context(cafile=str(tls.certificate))
        url = f"https://{other.address}/v1/{THING}"
        async with http.get(url, headers=other.headers(), ssl=trust) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"http://{other.address}/healthz")
    finally:
        other.stop()
