"""What an attacker has: every rpc and route as the descriptors tell them, requests that fit, and tokens of all kinds.

It reads the descriptor set by itself, not by `penstock.rpc.access`: what that module overlooked must show here.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import grpc
import grpc.aio
from google.api import annotations_pb2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

from penstock.api.auth.v1 import access_pb2
from penstock.rpc.keys import Keys
from penstock.rpc.tokens import Tokens
from penstock.runtime.host import api_services

C = TypeVar("C")
T = TypeVar("T")
AT_ONCE = 24
SECONDS = 20.0
_VARIABLE = re.compile(r"\{([a-z_.]+)(?:=([^}]+))?\}")
_NUMBERED = ("versions", "revisions", "trials")
Answer = tuple[str, str]  # the name of the gRPC code, the message


@dataclass(frozen=True)
class Rpc:
    """One rpc: where it is on the wire, who may call it, and its REST bindings (verb, template, body)."""

    path: str
    access: str
    request: type[Message]
    response: type[Message]
    requests: bool  # a stream of them
    answers: bool
    bindings: tuple[tuple[str, str, str], ...]

    @property
    def in_project(self) -> bool:
        """Whether its requests name a project."""
        return self.access in ("VIEWER", "EDITOR", "ADMIN", "RUNNER") or "projects/*" in self.bindings[0][1]

    def variables(self, project: str) -> dict[str, str]:
        """The fields that its path names, such as {"parent": "projects/alpha"}, with a value that fits each."""
        found = _VARIABLE.findall(self.bindings[0][1])
        return {field: _filled(pattern or "*", project) for field, pattern in found}

    def ask(self, project: str) -> Message:
        """A request about a resource of a project that is not there."""
        message = self.request()
        for field, value in self.variables(project).items():
            put(message, field, value)
        return message

    def url(self, project: str) -> str:
        """The path of its first REST binding for such a request."""
        filled = self.variables(project)
        return _VARIABLE.sub(lambda found: filled[found[1]], self.bindings[0][1])


def _filled(pattern: str, project: str) -> str:
    words = pattern.replace("**", "*").split("/")
    for index, word in enumerate(words):
        if word == "*":
            before = words[index - 1] if index else ""
            words[index] = project if before == "projects" else "1" if before in _NUMBERED else "none"
    text = "/".join(words)
    return f"projects/{project}/runs/none" if text == f"projects/{project}" and "**" in pattern else text


def put(message: Message, path: str, value: Any) -> None:
    """Set a field by its dotted path."""
    *outer, last = path.split(".")
    for step in outer:
        message = getattr(message, step)
    setattr(message, last, value)


@cache
def all_rpcs() -> tuple[Rpc, ...]:
    """Every rpc of the descriptor set that Envoy is started with."""
    api_services()  # imports all generated modules, so that the pool knows every message
    content = resources.files("penstock.api").joinpath("descriptors.binpb").read_bytes()
    found = []
    for file in FileDescriptorSet.FromString(content).file:
        for service in file.service:
            found += [_rpc(f"{file.package}.{service.name}", method.name) for method in service.method]
    return tuple(found)


def _rpc(service: str, name: str) -> Rpc:
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    method = pool.FindServiceByName(service).FindMethodByName(name)
    rule: Any = method.GetOptions().Extensions[annotations_pb2.http]
    bindings = tuple(
        (verb, getattr(binding, verb), binding.body)
        for binding in (rule, *rule.additional_bindings)
        for verb in [str(binding.WhichOneof("pattern"))]
    )
    return Rpc(
        path=f"/{service}/{name}",
        access=access_pb2.Access.Name(method.GetOptions().Extensions[access_pb2.access]).removeprefix("ACCESS_"),
        request=message_factory.GetMessageClass(method.input_type),
        response=message_factory.GetMessageClass(method.output_type),
        requests=method.client_streaming,
        answers=method.server_streaming,
        bindings=bindings,
    )


async def call(
    channel: grpc.aio.Channel, rpc: Rpc, request: Message, token: str | None, *more: tuple[str, str]
) -> Answer:
    """Make a call; of a stream, the first message counts as OK."""
    metadata = [*([("authorization", f"Bearer {token}")] if token is not None else []), *more]
    coders: Any = {
        "request_serializer": rpc.request.SerializeToString,
        "response_deserializer": rpc.response.FromString,
    }
    make: Any = channel.unary_stream if rpc.answers else channel.unary_unary
    assert not rpc.requests, f"{rpc.path}: client streams are not attacked yet"
    running = make(rpc.path, **coders)(request, metadata=metadata, timeout=SECONDS)
    try:
        if rpc.answers:
            async for _ in running:
                break
        else:
            await running
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    finally:
        running.cancel()
    return "OK", ""


async def together(make: Callable[[C], Awaitable[T]], cases: Iterable[C]) -> list[tuple[C, T]]:
    """Make a call for each case, some at once; every case with its answer, in order."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(case: C) -> tuple[C, T]:
        async with turn:
            return case, await make(case)

    return list(await asyncio.gather(*map(one, cases)))


async def rest(
    http: aiohttp.ClientSession, base: str, rpc: Rpc, project: str, token: str | None, **more: Any
) -> tuple[int, str]:
    """The status and body of an rpc's REST route."""
    verb, _, body = rpc.bindings[0]
    headers = {"authorization": f"Bearer {token}"} if token is not None else {}
    url = base + quote(rpc.url(project), safe="/:")
    async with http.request(verb, url, json={} if body else None, headers=headers, **more) as response:
        first = await response.content.readany() if response.status == 200 else await response.read()
        return response.status, first.decode("utf-8", "replace")


@dataclass(frozen=True)
class Victim:
    """A running platform as seen from outside, and (only to make bad tokens with) its signing keys."""

    home: Path
    url: str
    admin: str  # the home's token

    @property
    def edge(self) -> str:
        """The edge as a gRPC target."""
        return self.url.removeprefix("http://")

    @property
    def services(self) -> str:
        """The services' own gRPC port, past the edge."""
        return str(json.loads((self.home / "run" / "services.ready").read_text())["address"])

    @property
    def signer(self) -> Tokens:
        """Mints tokens that the platform would accept, whatever they say."""
        return Tokens(Keys.open(self.home / "keys"))

    def token(self, project: str, role: str, subject: str = "mallory", ttl: float = 600) -> str:
        """A token signed by the platform."""
        return self.signer.mint(subject, project, role, ttl)


def summary(wrong: Sequence[Any]) -> str:
    """For an assertion's message: what went wrong, one a line."""
    return "\n" + "\n".join(str(item) for item in wrong[:40])
