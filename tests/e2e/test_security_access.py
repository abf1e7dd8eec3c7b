"""Every rpc and every route, through the edge and past it: who may not, is refused, and learns nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.descriptor import FieldDescriptor

from penstock.backing.stack import Stack
from penstock.rpc.auth import Authorizer
from tests.conftest import run_once
from tests.support.attacker import Answer, Rpc, Victim, all_rpcs, call, put, rest, summary, together
from tests.support.service_host import running_host

pytestmark = pytest.mark.asyncio(loop_scope="module")
RPCS = all_rpcs()
TOO_LOW = {
    "VIEWER": ("runner",),
    "EDITOR": ("viewer", "runner"),
    "ADMIN": ("viewer", "editor", "runner"),
    "PLATFORM": ("viewer", "editor", "admin", "runner"),
    "INTERNAL": ("viewer", "editor", "admin", "runner"),
    "RUNNER": ("viewer", "editor", "admin"),
}
# With a token that is good enough these would do what they are for, to a platform that other tests use.
DESTRUCTIVE = ("ResetGraph",)
INSIDE = re.compile(r"Traceback|site-packages|/[a-z]+/[a-z]+/.*\.py|pymongo|motor|asyncio|object at 0x")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(victim: Victim) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    """A channel to the edge, and one past it."""
    async with grpc.aio.insecure_channel(victim.edge) as edge, grpc.aio.insecure_channel(victim.services) as inside:
        yield {"edge": edge, "services": inside}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


Case = tuple[str, Rpc, str, str | None]


async def ask(doors: dict[str, grpc.aio.Channel], cases: list[Case]) -> list[tuple[Case, Answer]]:
    """Each case is (door, rpc, project in the request, token)."""
    return await together(lambda c: call(doors[c[0]], c[1], c[1].ask(c[2]), c[3]), cases)


async def test_the_descriptors_name_all_there_is() -> None:
    assert len(RPCS) > 80
    assert {rpc.access for rpc in RPCS} == set(TOO_LOW)
    assert all(rpc.bindings and rpc.bindings[0][1].startswith("/v1/") for rpc in RPCS)


async def test_no_rpc_answers_without_a_token(doors: dict[str, grpc.aio.Channel]) -> None:
    cases: list[Case] = [
        (door, rpc, "alpha", token) for door in doors for rpc in RPCS for token in (None, "", "x", "a.b.c")
    ]
    wrong = [(c[0], c[1].path, c[3], a) for c, a in await ask(doors, cases) if a[0] != "UNAUTHENTICATED"]
    assert not wrong, summary(wrong)


async def test_no_rpc_answers_a_token_of_another_project(doors: dict[str, grpc.aio.Channel], victim: Victim) -> None:
    strangers = [victim.token("beta", role) for role in ("viewer", "editor", "admin")]
    cases: list[Case] = [(door, rpc, "alpha", token) for door in doors for rpc in RPCS for token in strangers]
    wrong = [(c[0], c[1].path, a) for c, a in await ask(doors, cases) if a[0] != "PERMISSION_DENIED"]
    assert not wrong, summary(wrong)


async def test_no_rpc_answers_a_role_that_is_too_low(doors: dict[str, grpc.aio.Channel], victim: Victim) -> None:
    tokens = {role: victim.token("alpha", role) for role in ("viewer", "editor", "admin", "runner")}
    cases: list[Case] = [
        (door, rpc, "alpha", tokens[role]) for door in doors for rpc in RPCS for role in TOO_LOW[rpc.access]
    ]
    wrong = [(c[0], c[1].path, a) for c, a in await ask(doors, cases) if a[0] != "PERMISSION_DENIED"]
    assert not wrong, summary(wrong)


async def test_a_job_s_token_is_good_for_its_own_run_only(doors: dict[str, grpc.aio.Channel], victim: Victim) -> None:
    own = victim.token("alpha", "runner", subject="projects/alpha/runs/other")
    cases: list[Case] = [(door, rpc, "alpha", own) for door in doors for rpc in RPCS]
    wrong = [(c[0], c[1].path, a) for c, a in await ask(doors, cases) if a[0] != "PERMISSION_DENIED"]
    assert not wrong, summary(wrong)


async def test_a_good_token_is_not_refused_so_the_refusals_above_mean_something(
    doors: dict[str, grpc.aio.Channel], victim: Victim
) -> None:
    enough = {
        "PLATFORM": victim.admin,
        "INTERNAL": victim.token("", "service"),
        "ADMIN": victim.token("alpha", "admin"),
    }
    enough |= {role.upper(): victim.token("alpha", role) for role in ("viewer", "editor")}
    enough["RUNNER"] = victim.token("alpha", "runner", subject="projects/alpha/runs/none")
    rpcs = [rpc for rpc in RPCS if not rpc.path.endswith(DESTRUCTIVE) and "Watch" not in rpc.path]
    cases: list[Case] = [(door, rpc, "alpha", enough[rpc.access]) for door in doors for rpc in rpcs]
    refused = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "INTERNAL", "UNKNOWN")
    answers = await ask(doors, cases)
    wrong = [(c[0], c[1].path, a) for c, a in answers if a[0] in refused]
    # The runner's token is for attempt "<run>.<n>"; AppendMetrics looks at that too.
    wrong = [item for item in wrong if not (item[1].endswith("AppendMetrics") and "another attempt" in item[2][1])]
    assert not wrong, summary(wrong)


async def test_no_route_answers_without_a_token_or_with_another_project_s(
    http: aiohttp.ClientSession, victim: Victim
) -> None:
    stranger, low = victim.token("beta", "admin"), victim.token("alpha", "viewer")
    cases: list[tuple[Rpc, str | None, int]] = [(rpc, None, 401) for rpc in RPCS]
    cases += [(rpc, stranger, 403) for rpc in RPCS]
    cases += [(rpc, low, 403) for rpc in RPCS if "viewer" in TOO_LOW[rpc.access]]
    answers = await together(lambda c: rest(http, victim.url, c[0], "alpha", c[1]), cases)
    wrong = [(c[0].path, c[2], a) for c, a in answers if a[0] != c[2]]
    assert not wrong, summary(wrong)
    leaks = [(c[0].path, a[1]) for c, a in answers if INSIDE.search(a[1])]
    assert not leaks, summary(leaks)


async def test_what_is_no_rpc_needs_a_token_too(http: aiohttp.ClientSession, victim: Victim) -> None:
    paths = [
        "/", "/v1", "/v1/", "/v1/projects", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/fruit",
        "/v2/models/fruit/infer", "/v2/models/fruit/ready", "/v2/repository/index", "/metrics", "/stats", "/admin",
        "/config_dump", "/quitquitquit", "/.well-known/jwks.json", "/healthz/", "/healthz/x", "/favicon.ico",
        "/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ]  # fmt: skip
    for path in paths:
        for verb in ("GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "TRACE"):
            async with http.request(verb, victim.url + path) as response:
                assert response.status in ((401, 400) if verb == "TRACE" else (401,)), (verb, path, response.status)
    async with http.get(victim.url + "/healthz") as response:
        assert (response.status, await response.text()) == (200, "ok")


def _strings(message: Any, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """All single text fields of a request, those of messages inside too."""
    for field in message.fields:
        if field.is_repeated or depth > 4:
            continue
        if field.type == FieldDescriptor.TYPE_STRING:
            yield prefix + field.name
        elif field.message_type is not None and field.message_type.full_name.startswith("penstock."):
            yield from _strings(field.message_type, f"{prefix}{field.name}.", depth + 1)


async def test_no_field_smuggles_a_name_of_another_project(doors: dict[str, grpc.aio.Channel], victim: Victim) -> None:
    admin = victim.token("alpha", "admin")
    names = ["projects/beta", "projects/beta/datasets/d/versions/1", "projects/beta/models/m/versions/1"]
    names += ["projects/beta/runs/r", "projects/beta/endpoints/e", "projects/beta/studies/s/trials/1"]
    made: list[tuple[str, Rpc, str, str, Any]] = []
    for door in doors:
        for rpc in RPCS:
            if rpc.access not in ("VIEWER", "EDITOR", "ADMIN"):
                continue
            for path in _strings(rpc.request.DESCRIPTOR):
                for name in names:
                    request = rpc.ask("alpha")
                    put(request, path, name)
                    made.append((door, rpc, path, name, request))
    assert len(made) > 1000
    answers = await together(lambda m: call(doors[m[0]], m[1], m[4], admin), made)
    wrong = [(m[0], m[1].path, m[2], m[3], a) for m, a in answers if a[0] != "PERMISSION_DENIED"]
    assert not wrong, summary(wrong)


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """Servers of its own: a host makes streams, which those of the session are expected not to have yet."""
    servers = Stack(tmp_path / "stack")
    run_once(servers.start(attached=True))
    yield servers
    run_once(servers.stop(grace=2))


async def test_without_the_check_of_requests_the_stranger_would_get_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_stack: Stack
) -> None:
    """The negative control: in this process, with the mechanism taken out, another project's token gets through."""
    rpc = next(rpc for rpc in RPCS if rpc.path.endswith("/ListMembers"))
    async with running_host(own_stack, tmp_path / "home", {}) as host:
        stranger = host.tokens.mint("mallory", "beta", "viewer", 60)
        async with grpc.aio.insecure_channel(host.address) as channel:
            with monkeypatch.context() as without:
                without.setattr(Authorizer, "check_request", lambda *_: None)
                assert (await call(channel, rpc, rpc.ask("default"), stranger))[0] == "OK"
            assert (await call(channel, rpc, rpc.ask("default"), stranger))[0] == "PERMISSION_DENIED"
