"""What a service is given and what it gives: the seam between the services and the process that runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from prometheus_client import CollectorRegistry

from penstock import names
from penstock.api.event.v1.event_service_pb2 import ListEventsRequest
from penstock.api.event.v1.event_service_pb2_grpc import EventLogServiceStub
from penstock.events import Bus, Event
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.server import Registration
from penstock.rpc.tokens import Tokens
from penstock.runtime.settings import Settings
from penstock.store import Database


async def _nothing() -> None:
    pass


@dataclass
class Context:
    """What a process gives to one service.

    `channels` call other services as this one; `bus` is its own connection to NATS; `metrics` is of the process.
    """

    service: str
    settings: Settings
    tokens: Tokens
    channels: Channels
    bus: Bus
    objects: ObjectStore
    metrics: CollectorRegistry
    databases: dict[str, Database] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The platform's home directory; what a service keeps there lies in a folder of its name."""
        return self.settings.home

    def address(self) -> str:
        """Where this service listens, `host:port`: for jobs that report to it. Known once the process listens."""
        return self.channels.address(self.service)

    def database(self, name: str | None = None) -> Database:
        """The database of this service (`penstock_<service>`), connected when first used; closed by the process."""
        name = name or self.service
        if name not in self.databases:
            self.databases[name] = Database.connect(self.settings.mongodb_uri, f"penstock_{name}")
        return self.databases[name]

    async def fetch_history(self, resource: str, after: int) -> list[Event]:
        """The events of any resource after a sequence, from the service that owns it; for `Consumer(fetch_history=)`.

        Raises Unavailable while that service is down.
        """
        service = names.parse(resource).service
        stub = self.channels.stub(EventLogServiceStub, service)
        found: list[Event] = []
        while True:
            answer = await stub.ListEvents(ListEventsRequest(resource=resource, after_sequence=after))
            if not answer.events:
                return found
            found += [Event.from_proto(event) for event in answer.events]
            after = found[-1].sequence

    async def fetch_event(self, resource: str, sequence: int) -> Event | None:
        """One event of any resource, from the service that owns it; None if there is none. Raises Unavailable."""
        stub = self.channels.stub(EventLogServiceStub, names.parse(resource).service)
        request = ListEventsRequest(resource=resource, after_sequence=sequence - 1, page_size=1)
        found = [Event.from_proto(event) for event in (await stub.ListEvents(request)).events]
        return next((event for event in found if event.sequence == sequence), None)


@dataclass
class Service:
    """What `services/<name>/service.py` builds.

    `prepare` (indexes, migrations) is awaited before the server answers, and again if it raised Unavailable. `tasks`
    (relay, consumers, reconcilers) run for ever, restarted when they fail and cancelled at the stop; `close` is last.
    """

    name: str
    servicers: Sequence[Registration]
    prepare: Callable[[], Awaitable[None]] = _nothing
    tasks: Sequence[Callable[[], Awaitable[None]]] = ()
    close: Callable[[], Awaitable[None]] = _nothing


Build: TypeAlias = Callable[[Context], Service]
