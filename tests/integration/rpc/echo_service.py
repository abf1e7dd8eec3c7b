"""The test service: its proto compiled on import, a servicer whose answers a test chooses, and a running server."""

from __future__ import annotations

import asyncio
import importlib
import sys
import tempfile
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import google.api
import grpc.aio
from grpc_tools import protoc  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry

from penstock.rpc.calls import AuditRecord
from penstock.rpc.channels import Channels
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import Registration, Server
from penstock.rpc.tokens import ServiceTokens, Tokens

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SERVICE = "penstock.test.v1.EchoService"
NAME = "projects/vision/runs/one"


def _compiled() -> tuple[types.ModuleType, types.ModuleType]:
    google_protos = Path(next(iter(google.api.__path__))).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        includes = [HERE / "protos", ROOT / "proto", google_protos, resources.files("grpc_tools") / "_proto"]
        arguments = [f"-I{include}" for include in includes]
        outs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
        assert protoc.main(["protoc", *arguments, *outs, "penstock_test/echo.proto"]) == 0
        sys.path.insert(0, folder)
        try:
            return importlib.import_module("penstock_test.echo_pb2"), importlib.import_module(
                "penstock_test.echo_pb2_grpc"
            )
        finally:
            sys.path.remove(folder)


messages: Any
services: Any
messages, services = _compiled()


async def echoed(request: Any, context: Any) -> Any:
    """The usual answer: what was asked for."""
    return messages.Echo(name=getattr(request, "name", ""), text=getattr(request, "text", ""))


class EchoServicer(services.EchoServiceServicer):  # type: ignore[misc]
    """Answers what `answer` says; streams what `stream` says."""

    def __init__(self) -> None:
        self.answer: Callable[[Any, Any], Awaitable[Any]] = echoed
        self.stream: Callable[[Any, Any], AsyncIterator[Any]] = self._endless

    async def _endless(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield messages.Echo(name=request.name)
        await asyncio.Event().wait()

    async def GetEcho(self, request: Any, context: Any) -> Any:
        return await self.answer(request, context)

    CreateEcho = UpdateEcho = ListEverything = AskService = Greet = AppendEcho = GetEcho

    async def WatchEcho(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in self.stream(request, context):
            yield answer

    async def UploadEcho(self, requests: Any, context: Any) -> Any:
        texts = [request.text async for request in requests]
        return messages.Echo(text=" ".join(texts))

    async def ChatEcho(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield messages.Echo(name=request.name, text=request.text)


@dataclass
class Platform:
    """A running server with its keys and its list of revoked tokens."""

    server: Server
    servicer: EchoServicer
    tokens: Tokens
    denylist: Denylist
    registry: CollectorRegistry
    denied: set[str] = field(default_factory=set)
    audited: list[AuditRecord] = field(default_factory=list)
    readable: bool = True
    _channels: list[Channels] = field(default_factory=list)

    def token(self, role: str = "editor", project: str = "vision", **more: Any) -> str:
        """A token of this platform."""
        return self.tokens.mint(more.pop("subject", "ann"), project, role, more.pop("ttl", 600), **more)

    def stub(self, token: str | None = None, **more: Any) -> Any:
        """A stub that raises domain errors, as services have it."""
        text = self.token() if token is None else token
        channels = Channels({"echo": self.server.address}, lambda _: text, **more)
        self._channels.append(channels)
        return channels.stub(services.EchoServiceStub, "echo")

    def service_channels(self, **more: Any) -> Channels:
        """Channels of a service of the platform."""
        channels = Channels({"echo": self.server.address}, ServiceTokens(self.tokens, "service:echo"), **more)
        self._channels.append(channels)
        return channels

    async def close(self) -> None:
        """Close what stubs opened, and the server."""
        for channels in self._channels:
            await channels.close()
        await self.server.stop(1)


async def start(*, poll: float = 0.1, max_age: float = 5.0, **more: Any) -> Platform:
    """Start a platform on a free port."""
    tokens = Tokens(Keys.generate())
    registry = CollectorRegistry()
    servicer = EchoServicer()

    async def fetch() -> set[str]:
        if not platform.readable:
            raise OSError("the list cannot be read")
        return set(platform.denied)

    async def audit(record: AuditRecord) -> None:
        platform.audited.append(record)

    denylist = Denylist(fetch, max_age=max_age, poll=poll)
    registration = Registration(services.add_EchoServiceServicer_to_server, servicer, SERVICE)
    server = Server("127.0.0.1:0", [registration], tokens, denylist, registry=registry, audit=audit, **more)
    platform = Platform(server, servicer, tokens, denylist, registry)
    await denylist.refresh()
    await server.start()
    return platform


def bare_channel(platform: Platform) -> grpc.aio.Channel:
    """A channel without anything of Penstock's."""
    return grpc.aio.insecure_channel(platform.server.address)


async def eventually(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until something holds that nobody signals. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
