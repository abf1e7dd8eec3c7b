"""Tokens: forged, expired, revoked, or asking for more than their member may; at both doors, open streams too."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from penstock.api.event.v1 import event_service_pb2 as event_pb
from penstock.api.event.v1.event_service_pb2_grpc import EventServiceStub
from penstock.api.project.v1 import project_service_pb2 as pb
from penstock.errors import InvalidArgument, PermissionDenied, Unauthenticated
from penstock.rpc.keys import Keys
from penstock.rpc.tokens import Tokens
from penstock.sdk import Client
from tests.support.attacker import Rpc, Victim, all_rpcs, call
from tests.support.rivals import make_project, token_of

GET: Rpc = next(rpc for rpc in all_rpcs() if rpc.path.endswith("/GetProject"))
PROMISED = 5.0  # seconds from a revocation until nobody takes the token


@pytest.fixture(scope="module")
def boss(victim: Victim) -> Iterator[Client]:
    """The admin of the project `vault`."""
    with make_project(victim, "vault") as client:
        yield client


async def everywhere(victim: Victim, token: str) -> tuple[str, str, int]:
    """What the edge says by gRPC, the services' port, and the edge by REST."""
    async with grpc.aio.insecure_channel(victim.edge) as edge, grpc.aio.insecure_channel(victim.services) as services:
        answers = [(await call(door, GET, GET.ask("vault"), token))[0] for door in (edge, services)]
    headers = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.get(f"{victim.url}/v1/projects/vault", headers=headers) as answer:
        return answers[0], answers[1], answer.status


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def forgeries(victim: Victim) -> dict[str, str]:
    """Tokens for `vault` that nobody should take."""
    keys = Keys.open(victim.home / "keys")
    good = victim.token("vault", "admin")
    header, body, signature = good.split(".")
    claims: dict[str, Any] = jwt.decode(good, options={"verify_signature": False})
    kid = keys.signing.kid

    def signed(changes: dict[str, Any], headers: dict[str, Any] | None = None) -> str:
        present = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(present, keys.signing.private, "ES256", headers={"kid": kid} | (headers or {}))

    public = keys.signing.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = f"{_b64(json.dumps({'alg': 'HS256', 'typ': 'JWT', 'kid': kid}).encode())}.{body}"
    mac = hmac.digest(public, confused.encode(), "sha256")
    raised = _b64(json.dumps(claims | {"platform": True}).encode())
    return {
        "expired": signed({"exp": int(time.time()) - 60}),
        "of another key": Tokens(Keys.generate()).mint("eve", "vault", "admin", 600),
        "of another key under our kid": jwt.encode(claims, Keys.generate().signing.private, "ES256", {"kid": kid}),
        "unsigned": jwt.encode(claims, "", "none", headers={"kid": kid}),
        "unsigned, kept signature": f"{_b64(json.dumps({'alg': 'none', 'kid': kid}).encode())}.{body}.{signature}",
        "HMAC by the public key": f"{confused}.{_b64(mac)}",
        "raised to the platform's": f"{header}.{raised}.{signature}",
        "without an end": signed({"exp": None}),
        "without an id": signed({"jti": None}),
        "of an unknown role": signed({"role": "root"}),
        "without a signature": f"{header}.{body}.",
        "a key of its own in the header": signed({}, {"jwk": Keys.generate().signing.jwk(), "kid": "x"}),
        "a key from elsewhere": signed({}, {"jku": "https://example.com/jwks.json", "kid": "../../keys/0001.pem"}),
    }


async def test_forged_and_expired_tokens_are_refused_at_both_doors(victim: Victim, boss: Client) -> None:
    assert await everywhere(victim, victim.token("vault", "viewer")) == ("OK", "OK", 200)
    for why, token in forgeries(victim).items():
        by_edge, by_services, by_rest = await everywhere(victim, token)
        assert (by_edge, by_services, by_rest) == ("UNAUTHENTICATED", "UNAUTHENTICATED", 401), why


async def test_schemes_and_places_other_than_the_header_carry_no_token(victim: Victim, boss: Client) -> None:
    token = victim.token("vault", "viewer")
    url = f"{victim.url}/v1/projects/vault"
    tries: list[tuple[str, dict[str, str]]] = [
        (f"{url}?access_token={token}", {}),
        (f"{url}?authorization=Bearer%20{token}", {}),
        (url, {"cookie": f"authorization=Bearer {token}; token={token}"}),
        (url, {"authorization": f"Basic {token}"}),
        (url, {"authorization": token}),
        (url, {"x-authorization": f"Bearer {token}"}),
        (url, {"proxy-authorization": f"Bearer {token}"}),
    ]
    async with aiohttp.ClientSession() as http:
        for where, headers in tries:
            async with http.get(where, headers=headers) as answer:
                assert answer.status == 401, (where[:80], headers.keys())


async def refused_within(victim: Victim, token: str) -> float:
    """Seconds until all doors refuse a token; fails beyond the promise."""
    began = time.monotonic()
    while (answers := await everywhere(victim, token)) != ("UNAUTHENTICATED", "UNAUTHENTICATED", 401):
        assert time.monotonic() - began < PROMISED, answers
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def follow(address: str, token: str) -> tuple[str, float]:
    """The status with which a stream that says nothing ends, and when."""
    async with grpc.aio.insecure_channel(address) as channel:
        metadata = (("authorization", f"Bearer {token}"),)
        request = event_pb.WatchEventsRequest(parent="projects/vault", type="com.example.never")
        stream: Any = EventServiceStub(channel).WatchEvents(request, metadata=metadata)
        await stream.initial_metadata()
        async for _ in stream:
            pass
        return (await stream.code()).name, time.monotonic()


async def until_revoked(victim: Victim, boss: Client, how: Callable[[pb.Token], object]) -> None:
    """Make a token, use it at all doors with streams open, take it back by `how`, and see all of that end."""
    made = await asyncio.to_thread(token_of, boss, "vault", "leaver", "viewer")
    assert await everywhere(victim, made.text) == ("OK", "OK", 200)
    following = [asyncio.create_task(_ended(door, made.text)) for door in (victim.edge, victim.services)]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in following)
    began = time.monotonic()
    await asyncio.to_thread(how, made)
    await refused_within(victim, made.text)
    for code, at in await asyncio.gather(*following):
        assert code == "UNAUTHENTICATED"
        assert at - began < PROMISED


async def _ended(door: str, token: str) -> tuple[str, float]:
    try:
        return await follow(door, token)
    except grpc.aio.AioRpcError as error:
        return error.code().name, time.monotonic()


async def test_a_revoked_token_is_refused_everywhere_and_its_open_streams_end(victim: Victim, boss: Client) -> None:
    await until_revoked(victim, boss, lambda token: boss.projects.RevokeToken(pb.RevokeTokenRequest(name=token.name)))


async def test_a_member_who_leaves_takes_all_tokens_along(victim: Victim, boss: Client) -> None:
    member = pb.Member(name="projects/vault/members/leaver", role=pb.ROLE_VIEWER)
    await asyncio.to_thread(boss.projects.UpdateMember, pb.UpdateMemberRequest(member=member, allow_missing=True))
    await until_revoked(victim, boss, lambda _: boss.projects.DeleteMember(pb.DeleteMemberRequest(name=member.name)))


async def test_an_open_stream_ends_when_its_token_expires(victim: Victim, boss: Client) -> None:
    token = victim.token("vault", "viewer", ttl=2)
    ended = await asyncio.gather(*(_ended(door, token) for door in (victim.edge, victim.services)))
    assert {code for code, _ in ended} == {"UNAUTHENTICATED"}


def test_a_token_has_no_more_than_its_member_s_role(victim: Victim, boss: Client) -> None:
    member = pb.Member(name="projects/vault/members/intern", role=pb.ROLE_VIEWER)
    boss.projects.UpdateMember(pb.UpdateMemberRequest(member=member, allow_missing=True))
    token_of(boss, "vault", "intern", "viewer")
    for role in ("editor", "admin"):
        with pytest.raises(InvalidArgument):
            token_of(boss, "vault", "intern", role)
    member.role = pb.ROLE_ADMIN
    boss.projects.UpdateMember(pb.UpdateMemberRequest(member=member, allow_missing=True))
    high = token_of(boss, "vault", "intern", "admin")  # the control
    member.role = pb.ROLE_EDITOR
    boss.projects.UpdateMember(pb.UpdateMemberRequest(member=member, allow_missing=True))
    asyncio.run(refused_within(victim, high.text))


@pytest.mark.parametrize("spelling", ["int%65rn2", "%69ntern2", "intern%32"])
def test_a_member_s_role_holds_for_every_spelling_of_the_name(boss: Client, spelling: str) -> None:
    member = pb.Member(name=f"projects/vault/members/{spelling}", role=pb.ROLE_VIEWER)
    assert boss.projects.UpdateMember(pb.UpdateMemberRequest(member=member, allow_missing=True)).subject == "intern2"
    with pytest.raises(InvalidArgument):
        token_of(boss, "vault", "intern2", "admin")


def test_the_api_makes_no_token_of_a_job_a_service_or_the_platform(victim: Victim, boss: Client) -> None:
    for number in (0, 4, 99):
        asked = pb.Token(subject="x", role=number)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument):
            boss.projects.CreateToken(pb.CreateTokenRequest(parent="projects/vault", token=asked))
    made = token_of(boss, "vault", "home", "admin")
    claims = jwt.decode(made.text, options={"verify_signature": False})
    assert (claims["platform"], claims["role"], claims["project"]) == (False, "admin", "vault")
    with Client(victim.url, made.text, "vault") as client, pytest.raises(PermissionDenied):
        client.projects.ListProjects(pb.ListProjectsRequest())
    for ttl in (-5, 366 * 86400 + 10, 10**11):
        with pytest.raises(InvalidArgument):
            token_of(boss, "vault", "x", "viewer", ttl)


def test_a_token_s_text_is_shown_once_and_kept_nowhere(victim: Victim, boss: Client) -> None:
    made = token_of(boss, "vault", "shown", "viewer")
    listed = boss.projects.ListTokens(pb.ListTokensRequest(parent="projects/vault", page_size=1000)).tokens
    assert made.name in {token.name for token in listed} and not any(token.text for token in listed)
    again = boss.projects.RevokeToken(pb.RevokeTokenRequest(name=made.name))
    assert not again.text
    with Client(victim.url, "", "vault") as nobody, pytest.raises(Unauthenticated):
        nobody.projects.GetProject(pb.GetProjectRequest(name="projects/vault"))
