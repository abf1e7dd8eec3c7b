"""What every service of one home needs before it can start: NATS and MongoDB, side by side.

Envoy and Triton belong to the edge and to serving, which write their configuration; they start them by themselves.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock.backing.mongodb import MongoServer
from penstock.backing.nats import NatsServer
from penstock.backing.supervisor import Supervisor
from penstock.events.credentials import Permissions, service_permissions


class Stack:
    """NATS and MongoDB of one home directory, adopted if they run and started on their data if they do not."""

    def __init__(
        self,
        home: Path,
        *,
        mongodb_uri: str | None = None,
        nats_port: int | None = None,
        mongodb_port: int | None = None,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home = home.resolve()
        self.nats = NatsServer(self.home, nats_port)
        self.mongodb = MongoServer(self.home, mongodb_uri, mongodb_port)

    @property
    def nats_url(self) -> str:
        """Where NATS listens; once started."""
        return self.nats.url

    @property
    def mongodb_uri(self) -> str:
        """What a MongoDB driver connects to; once started."""
        return self.mongodb.uri

    async def start(self, *, attached: bool = False) -> None:
        """Both at once; returns when both answer. See `ManagedProcess.start` for `attached`."""
        await asyncio.gather(self.nats.start(attached=attached), self.mongodb.start(attached=attached))

    def supervise(self, supervisor: Supervisor) -> None:
        """Have both restarted, on their ports and data, whenever they die."""
        supervisor.watch("nats", self.nats.start, self.nats.sick)
        if self.mongodb.managed:
            supervisor.watch("mongodb", self.mongodb.start)

    async def stop(self, grace: float = 10.0) -> None:
        """End what this home runs; a database that is only used is left alone."""
        found = [server.process for server in (self.nats, self.mongodb) if server.process is not None]
        await asyncio.gather(*(asyncio.to_thread(process.stop, grace) for process in found))

    def service_credentials(self, service: str, *, publish: tuple[str, ...] = ()) -> Path:
        """A `.creds` file for a service; its client must use `inbox_prefix(service)`."""
        return self.nats.credentials(service, service_permissions(service, publish=publish))

    def credentials(self, name: str, permissions: Permissions, ttl: float | None = None) -> Path:
        """A `.creds` file for anybody else."""
        return self.nats.credentials(name, permissions, ttl)
