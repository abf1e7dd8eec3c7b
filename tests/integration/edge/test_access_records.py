"""Envoy's own records of what endpoints answered: what a shift of traffic is judged by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from penstock.edge import access_log
from tests.integration.edge.conftest import ModelServer, Platform

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_each_answer_of_an_endpoint_is_recorded(
    platform: Platform, http: aiohttp.ClientSession, channel: grpc.aio.Channel, model_server: Callable[..., ModelServer]
) -> None:
    edge = platform.edge
    for revision, name in ((1, "good"), (2, "bad")):
        server = model_server(revision, fail=name == "bad")
        await edge.applied("alpha", name, edge.set_endpoint("alpha", name, [server.member()]))
    start = edge.access_log_end()
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    ids = []
    for name in ("good", "bad", "none"):
        url = f"{platform.url}/v2/models/{name}/infer?sleep=0.05"
        async with http.post(url, json={}, headers=platform.headers()) as response:
            ids.append(response.headers["x-request-id"])
        call = stub.ModelInfer(service_pb2.ModelInferRequest(model_name=name), metadata=platform.metadata())
        try:
            await call
        except grpc.aio.AioRpcError:
            assert name != "good"
    async with http.get(f"{platform.url}/v1/projects/alpha/things/x", headers=platform.headers()):
        pass  # not of an endpoint: no record
    found, position = await platform.records(start, 6)
    assert [(r.endpoint, r.status, r.grpc_status, r.revision) for r in found] == [
        ("good", 200, None, 1),
        ("good", 200, 0, 1),
        ("bad", 500, None, 2),
        ("bad", 200, 13, 2),
        ("none", 404, None, None),
        ("none", 200, 5, None),
    ]
    assert [r.request_id for r in found[::2]] == ids
    assert 0.05 <= found[0].duration < 5
    assert all(r.predicting and r.project == "alpha" and "?" not in r.path for r in found)
    assert edge.access_log(position) == ([], position)


async def test_no_record_is_lost_when_the_log_is_rotated(platform: Platform, http: aiohttp.ClientSession) -> None:
    edge = platform.edge
    position, asked, found = edge.access_log_end(), 0, []
    for turn in range(3):
        for _ in range(20):
            async with http.get(f"{platform.url}/v2/models/good/ready", headers=platform.headers()) as response:
                assert response.status == 200
            asked += 1
        assert await edge.rotate_access_log(max_bytes=-1 if turn else 1 << 30) == bool(turn)
        more, position = await platform.records(position, 20)
        found.extend(more)
    assert len(found) == len({record.request_id for record in found}) == asked


async def test_a_log_that_was_moved_but_not_opened_again_is_opened_at_the_next_look(
    platform: Platform, http: aiohttp.ClientSession
) -> None:
    """As if the services had died in between: Envoy would write to the moved file for ever."""
    log = platform.edge.folder.access_log
    access_log.rotate(log)
    assert await platform.edge.rotate_access_log()
    async with asyncio.timeout(20):
        while not log.exists():
            async with http.get(f"{platform.url}/v2/models/good/ready", headers=platform.headers()) as response:
                assert response.status == 200
    assert not await platform.edge.rotate_access_log()
