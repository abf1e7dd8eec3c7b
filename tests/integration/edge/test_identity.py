"""Who gets through: tokens, projects, revocation, and what a client cannot say in our name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
import grpc
import jwt
import pytest
from yarl import URL

from penstock.edge import filters
from penstock.edge.files import replace, replace_json
from penstock.edge.model import Keys as EdgeKeys
from penstock.rpc.keys import Keys
from penstock.rpc.tokens import Tokens
from tests.integration.edge.api_server import METHODS, SERVICE, Request, Thing
from tests.integration.edge.conftest import ModelServer, Platform

pytestmark = pytest.mark.asyncio(loop_scope="module")
THING = "/v1/projects/alpha/things/x"
PATHS = [
    THING,
    "/v1/projects/alpha/things/x:watch",
    "/v2",
    "/v2/health/ready",
    "/v2/models/clf",
    "/v2/models/clf/infer",
    "/",
]
REFUSED = (401, grpc.StatusCode.UNAUTHENTICATED)


def call(channel: grpc.aio.Channel, name: str, metadata: list[tuple[str, str]], method: str = "GetThing") -> Any:
    unary = channel.unary_unary(f"/{SERVICE}/{method}", Request.SerializeToString, Thing.FromString)
    return unary(Request(name=name), metadata=metadata)


async def code(awaitable: Any) -> grpc.StatusCode:
    try:
        await awaitable
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def forged(platform: Platform, /, **changes: Any) -> str:
    """A token signed with the platform's key whose claims are changed (None: left out)."""
    claims = jwt.decode(platform.token(), options={"verify_signature": False}) | changes
    key = platform.signer._keys.signing
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, key.private, algorithm="ES256", headers={"kid": key.kid})


async def status(http: aiohttp.ClientSession, platform: Platform, path: str, token: str | None, **more: Any) -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with http.get(platform.url + path, headers=headers | more.pop("headers", {}), **more) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("path", PATHS)
async def test_no_path_answers_without_a_token(platform: Platform, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(platform.url + path) as response:
        assert response.status == 401
        body = await response.json()
    assert "token" in (body["error"] if path.startswith("/v2") else body["message"])
    assert path.startswith("/v2") or body["code"] == 16


@pytest.mark.parametrize("method", [*METHODS, "Unknown"])
async def test_no_method_answers_without_a_token(platform: Platform, channel: grpc.aio.Channel, method: str) -> None:
    assert await code(call(channel, "projects/alpha/things/x", [], method)) is grpc.StatusCode.UNAUTHENTICATED


async def test_healthz_is_open_and_says_nothing_else(platform: Platform, http: aiohttp.ClientSession) -> None:
    assert await status(http, platform, "/healthz", None) == 200
    for path in ("/healthz/", "/healthz/../v2", "/healthz;x", "/HEALTHZ"):
        assert await status(http, platform, path, None) == 401, path


async def test_bad_tokens_are_refused_by_rest_and_grpc(
    platform: Platform, http: aiohttp.ClientSession, channel: grpc.aio.Channel
) -> None:
    stranger = Tokens(Keys.generate()).mint("eve", "alpha", "admin", 600)
    good = platform.token()
    tokens = {
        "expired": forged(platform, exp=int(time.time()) - 60),
        "never expires": forged(platform, exp=None),
        "unknown key": stranger,
        "other issuer": forged(platform, iss="somebody"),
        "other audience": forged(platform, aud="somebody"),
        "changed": good[:-6] + ("AAAAAA" if good[-6:] != "AAAAAA" else "BBBBBB"),
        "unsigned": jwt.encode({"iss": "penstock", "aud": "penstock", "project": "alpha"}, "", algorithm="none"),
        "no JWT": "abc",
    }
    assert await status(http, platform, THING, good) == 200
    for why, token in tokens.items():
        rest, rpc = (403, grpc.StatusCode.PERMISSION_DENIED) if why == "other audience" else REFUSED
        assert await status(http, platform, THING, token) == rest, why
        metadata = [("authorization", f"Bearer {token}")]
        assert await code(call(channel, "projects/alpha/things/x", metadata)) is rpc, why


async def test_a_token_in_the_query_is_none(platform: Platform, http: aiohttp.ClientSession) -> None:
    assert await status(http, platform, f"{THING}?access_token={platform.token()}", None) == 401


@pytest.mark.parametrize(
    "path",
    [
        "/v1/projects/beta/things/x",
        "/v1/projects/beta",
        "/v1/projects/beta:archive",
        "/v1/projects/%62eta/things/x",
        "//v1//projects/beta/things/x",
        "/v1/projects/alpha/../beta/things/x",
        "/v1/projects/beta/v2/models/clf/infer",
    ],
)
async def test_another_projects_path_is_forbidden(platform: Platform, http: aiohttp.ClientSession, path: str) -> None:
    url = URL(platform.url + path, encoded=True)
    async with http.get(url, headers=platform.headers()) as response:
        assert response.status == 403
        assert (await response.json())["code"] == 7


async def test_an_escaped_slash_is_rejected(platform: Platform, http: aiohttp.ClientSession) -> None:
    url = URL(f"{platform.url}/v1/projects/alpha%2f..%2fbeta/things/x", encoded=True)
    async with http.get(url, headers=platform.headers()) as response:
        assert response.status == 400


async def test_the_platforms_token_may_act_in_any_project(platform: Platform, http: aiohttp.ClientSession) -> None:
    path = "/v1/projects/beta/things/x"
    assert await status(http, platform, path, platform.token(platform=True)) == 200
    assert await status(http, platform, path, platform.token("", "service")) == 200
    assert await status(http, platform, path, platform.token("alpha", "service")) == 403
    for lookalike in ("true", 1, [True]):
        assert await status(http, platform, path, forged(platform, platform=lookalike)) == 403, lookalike


async def test_a_token_without_a_project_gets_nowhere(platform: Platform, http: aiohttp.ClientSession) -> None:
    for project in (None, "", "../x", 7, "alpha/clf"):
        assert await status(http, platform, "/v2/models/clf", forged(platform, project=project)) == 403, project


async def test_a_service_sees_the_project_of_the_token_and_no_header_of_the_clients(
    platform: Platform, channel: grpc.aio.Channel
) -> None:
    claimed = {
        "x-penstock-project": "beta",
        "x-penstock-on-behalf-of": "beta/root",
        "x-penstock-revision": "3",
        "x-penstock-cluster": "service/demo",
        "penstock-pin": "3",
        "x-request-id": "mine",
        "x-envoy-retry-on": "5xx",
    }
    await call(channel, "projects/alpha/things/x", [*platform.metadata(), *claimed.items()])
    seen = platform.api.seen
    assert seen["x-penstock-project"] == "alpha"
    assert seen["authorization"].startswith("Bearer ")  # it checks again
    assert seen["x-request-id"] != "mine"
    assert not {name for name in claimed if name in seen} - {"x-penstock-project", "x-request-id"}


async def test_a_model_sees_no_token_and_no_cookie(
    platform: Platform, http: aiohttp.ClientSession, model_server: Callable[..., ModelServer]
) -> None:
    generation = platform.edge.set_endpoint("alpha", "secretive", [model_server(1).member()])
    await platform.edge.applied("alpha", "secretive", generation)
    headers = platform.headers() | {"Cookie": "a=b", "X-Penstock-Project": "beta", "X-PENSTOCK-FOO": "1"}
    async with http.post(f"{platform.url}/v2/models/secretive/infer", json={}, headers=headers) as response:
        seen = {key.lower(): value for key, value in (await response.json())["headers"].items()}
    assert seen["x-penstock-project"] == "alpha"
    assert not seen.keys() & {"authorization", "cookie", "x-penstock-foo", "x-penstock-cluster"}


async def revoke_and_ask(platform: Platform, http: aiohttp.ClientSession, channel: grpc.aio.Channel) -> tuple[int, Any]:
    """Revoke a token that two open connections use, and ask both again."""
    token, other = platform.token(token_id="t-lost"), platform.token(token_id="t-kept")
    metadata = [("authorization", f"Bearer {token}")]
    assert await status(http, platform, THING, token) == 200
    assert await code(call(channel, "projects/alpha/things/x", metadata)) is grpc.StatusCode.OK
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), {"t-lost", "t-other"})
    await platform.edge.keys_applied()
    assert await status(http, platform, THING, other) == 200
    answers = await status(http, platform, THING, token), await code(call(channel, "projects/alpha/things/x", metadata))
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), ())
    await platform.edge.keys_applied()
    return answers


async def test_a_revoked_token_is_refused_at_once_on_open_connections(
    platform: Platform, http: aiohttp.ClientSession, channel: grpc.aio.Channel
) -> None:
    assert await revoke_and_ask(platform, http, channel) == REFUSED


async def test_without_the_denylist_in_the_filter_a_revoked_token_gets_through(
    platform: Platform, http: aiohttp.ClientSession, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above."""
    real = filters.identity_resource
    monkeypatch.setattr(filters, "identity_resource", lambda given: real(EdgeKeys(given.jwks)))
    assert await revoke_and_ask(platform, http, channel) == (200, grpc.StatusCode.OK)


async def test_keys_rotate_while_connections_stay_open(platform: Platform, http: aiohttp.ClientSession) -> None:
    fresh = Tokens(Keys.generate())
    old, new = platform.token(), fresh.mint("ada", "alpha", "editor", 600)
    assert (await status(http, platform, THING, old), await status(http, platform, THING, new)) == (200, 401)
    platform.edge.set_keys_and_denylist(fresh.jwks(), ())
    await platform.edge.keys_applied()
    assert (await status(http, platform, THING, old), await status(http, platform, THING, new)) == (401, 200)
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), ())
    await platform.edge.keys_applied()


def _refused(counters: Iterable[str]) -> bool:
    return any("update_rejected" in name or "config_fail" in name for name in counters)


async def test_a_broken_update_keeps_what_was_there(platform: Platform, http: aiohttp.ClientSession) -> None:
    token = platform.token(token_id="t-gone")
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), {"t-gone"})
    await platform.edge.keys_applied()
    replace(platform.edge.folder.jwt, b"{ not json")
    broken = filters.identity_resource(EdgeKeys(platform.signer.jwks()))
    broken["resources"][0]["typed_config"]["default_source_code"]["inline_string"] = "this is ( no Lua"
    replace_json(platform.edge.folder.identity, broken)
    async with asyncio.timeout(20):
        while not _refused(await platform.edge.admin.refused()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    assert await status(http, platform, THING, token) == 401
    assert await status(http, platform, THING, platform.token()) == 200
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), ())
    await platform.edge.keys_applied()


async def test_a_script_that_fails_opens_nothing(platform: Platform, http: aiohttp.ClientSession) -> None:
    failing = filters.identity_resource(EdgeKeys(platform.signer.jwks()))
    failing["resources"][0]["typed_config"]["default_source_code"]["inline_string"] = (
        "function envoy_on_request(handle) error('no') end"
    )
    replace_json(platform.edge.folder.identity, failing)
    async with asyncio.timeout(20):
        while await status(http, platform, "/v1/projects/beta/things/x", platform.token()) != 404:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await status(http, platform, "/v2/models/clf", platform.token()) == 404
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), ())
    await platform.edge.keys_applied()
    assert await status(http, platform, THING, platform.token()) == 200
