"""Services in a host, for tests that need all that a service consists of: gRPC, NATS, the store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from penstock.backing.stack import Stack
from penstock.rpc.channels import Channels
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import Registration, Server
from penstock.rpc.tokens import Tokens
from penstock.runtime.host import Host
from penstock.runtime.service import Build
from penstock.runtime.settings import Settings
from services.project.service import build as build_project
from tests.conftest import run_once


@contextlib.contextmanager
def own_stack(folder: Path) -> Iterator[Stack]:
    """NATS and a database that nobody else uses: the consumers of a service have one name wherever it runs."""
    servers = Stack(folder)
    try:
        run_once(servers.start(attached=True))
        yield servers
    finally:
        run_once(servers.stop(grace=2))


async def nothing_denied() -> set[str]:
    """No token was revoked."""
    return set()


@dataclass
class World:
    """A host with the project service and others, fakes beside it, and clients of both."""

    stack: Stack
    settings: Settings
    builds: Mapping[str, Build]
    fakes: Mapping[str, str] = field(default_factory=dict)  # service -> address
    host: Host | None = None
    _channels: list[Channels] = field(default_factory=list)

    async def start(self) -> None:
        """Start the host; again after `stop`, over the same databases and streams."""
        self.host = Host(self.settings, self.builds, metrics_listen=None)
        await self.host.start()

    async def stop(self) -> None:
        """Stop the host."""
        if self.host is not None:
            await self.host.stop()
            self.host = None

    @property
    def running(self) -> Host:
        """The host."""
        assert self.host is not None
        return self.host

    def mint(self, project: str, role: str = "editor", subject: str = "ann", **more: Any) -> str:
        """A token, without asking anybody."""
        return self.running.tokens.mint(subject, project, role, 600, **more)

    def home_token(self) -> str:
        """The token of the platform's user."""
        return (self.settings.home / "token").read_text().strip()

    def stub(self, make: Callable[[Any], Any], service: str, token: str) -> Any:
        """A client of a service in the host."""
        channels = Channels({service: self.running.address}, lambda _: token)
        self._channels.append(channels)
        return channels.stub(make, service)

    async def close(self) -> None:
        """Stop everything, and drop the databases."""
        for channels in self._channels:
            await channels.close()
        databases = [context.database() for context in self.host.contexts.values()] if self.host else []
        for database in databases:
            await database.drop()
        await self.stop()


@contextlib.asynccontextmanager
async def world_of(
    stack: Stack,
    home: Path,
    builds: Mapping[str, Build],
    fakes: Mapping[str, Registration] | None = None,
    publish: Mapping[str, tuple[str, ...]] = MappingProxyType({"pipeline": ("penstock.*.external.>",)}),
) -> AsyncIterator[World]:
    """A running world; `fakes` are served under their services' addresses, `publish` are subjects beyond the usual."""
    chosen = {"project": build_project, **builds}
    for name in chosen:
        stack.service_credentials(name, publish=publish.get(name, ()))
    server = Server(
        "127.0.0.1:0", list((fakes or {}).values()), Tokens(Keys.open(home / "keys")), Denylist(nothing_denied)
    )
    addresses = dict.fromkeys(fakes or {}, await server.start())
    settings = replace(
        Settings.from_environ({}, home=home),
        mongodb_uri=stack.mongodb_uri,
        nats_url=stack.nats_url,
        nats_credentials=stack.home / "nats" / "users",
        addresses=addresses,
    )
    world = World(stack, settings, chosen, addresses)
    try:
        await world.start()
        yield world
    finally:
        await world.close()
        await server.stop(0)
