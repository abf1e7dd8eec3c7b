"""Every RPC and every REST route of the API as it is: none without a token, none into another project."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, NamedTuple

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.integration.edge.conftest import Platform

pytestmark = pytest.mark.asyncio(loop_scope="module")
API = resources.files("penstock.api").joinpath("descriptors.binpb").read_bytes()


class Route(NamedTuple):
    rpc: str
    verb: str
    path: str


def all_routes() -> list[Route]:
    """Every RPC with its REST binding; a path's variables are filled with ids of project alpha."""
    found = []
    for file in FileDescriptorSet.FromString(API).file:
        for service in file.service:
            for method in service.method:
                rule: Any = method.options.Extensions[annotations_pb2.http]  # type: ignore[index]
                for binding in (rule, *rule.additional_bindings):
                    verb = binding.WhichOneof("pattern") or ""
                    path = re.sub(r"\{[^=}]+=([^}]+)\}", r"\1", getattr(binding, verb) if verb else "")
                    path = re.sub(
                        r"\*+", "x", re.sub(r"projects/\*+", "projects/alpha", re.sub(r"\{[^}]+\}", "x", path))
                    )
                    found.append(Route(f"/{file.package}.{service.name}/{method.name}", verb, path))
    return found


ROUTES = all_routes()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def real_api(platform: Platform) -> None:
    """The real descriptors, every service at the address of a server that implements none."""
    services = {route.rpc.split(".")[2] for route in ROUTES}
    address = f"127.0.0.1:{platform.api.port}"
    platform.write_base(services=dict.fromkeys(services, address), descriptor_set=API, reflection="project")
    platform.stop()
    await platform.start()
    assert await platform.edge.admin.refused() == {}


async def test_the_api_was_found() -> None:
    assert len(ROUTES) > 20
    assert all(route.verb and route.path.startswith("/v1/") for route in ROUTES)


async def test_no_route_answers_without_a_token(
    platform: Platform, http: aiohttp.ClientSession, channel: grpc.aio.Channel
) -> None:
    for route in ROUTES:
        async with http.request(route.verb, platform.url + route.path, json={}) as response:
            assert response.status == 401, route
        call: Any = channel.unary_unary(route.rpc)
        assert await call(b"").code() is grpc.StatusCode.UNAUTHENTICATED, route


async def test_no_route_with_a_project_answers_a_token_of_another(
    platform: Platform, http: aiohttp.ClientSession
) -> None:
    headers = platform.headers("beta", "admin")
    for route in ROUTES:
        if "/projects/alpha" in route.path:
            async with http.request(route.verb, platform.url + route.path, json={}, headers=headers) as response:
                assert response.status == 403, route


async def test_every_route_reaches_its_service_with_the_right_token(
    platform: Platform, http: aiohttp.ClientSession, channel: grpc.aio.Channel
) -> None:
    headers = platform.headers("alpha", "admin")
    for route in ROUTES:
        body: dict[str, str] | None = {} if route.verb in ("post", "patch", "put") else None
        async with http.request(route.verb, platform.url + route.path, json=body, headers=headers) as response:
            assert response.status == 501, (route, await response.text())  # the server behind it has no such method
