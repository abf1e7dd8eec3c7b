"""One process of the platform: the services it was told to run, behind one gRPC server, from start to stop."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

import penstock.api
from penstock.api.project.v1.project_service_pb2 import ListDeniedTokensRequest
from penstock.api.project.v1.project_service_pb2_grpc import ProjectServiceStub
from penstock.errors import FailedPrecondition, InvalidArgument, PenstockError, Unavailable
from penstock.events import Bus
from penstock.events.figures import EventFigures
from penstock.objects import ObjectStore
from penstock.rpc import causes, paging
from penstock.rpc.addresses import TlsFiles
from penstock.rpc.channels import Channels
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import GRACE_SECONDS, Server
from penstock.rpc.tokens import ServiceTokens, Tokens, ensure_home_token
from penstock.runtime.audit import AuditTrail, send_to_project
from penstock.runtime.event_log import EventLogServicer, registration
from penstock.runtime.lifecycle import Tasks, until_it_works
from penstock.runtime.metrics import MetricsServer, new_registry
from penstock.runtime.service import Build, Context, Service
from penstock.runtime.settings import Settings
from penstock.store import Database

log = structlog.get_logger(__name__)

FIRST_DENYLIST_SECONDS = 5.0
OWNER_OF_TOKENS = "project"


def api_services() -> list[str]:
    """The full names of all rpc services of Penstock, wherever they run."""
    found: list[str] = []
    for module in pkgutil.walk_packages(penstock.api.__path__, "penstock.api."):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(module.name).DESCRIPTOR
            found += [service.full_name for service in descriptor.services_by_name.values()]
    return sorted(found)


@dataclass
class Host:
    """Runs the services that `builds` makes. Use `start` and `stop`, or `async with`.

    Raises InvalidArgument and FailedPrecondition for settings that cannot work; waits for servers that are down.
    """

    settings: Settings
    builds: Mapping[str, Build]
    listen: str = "127.0.0.1:0"
    metrics_listen: str | None = "127.0.0.1:0"
    address: str = ""
    metrics_address: str = ""
    services: list[Service] = field(default_factory=list)
    contexts: dict[str, Context] = field(default_factory=dict)
    _addresses: dict[str, str] = field(default_factory=dict)
    _closing: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Host:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> str:
        """Build, prepare and serve; returns the address when calls are answered."""
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise
        return self.address

    async def stop(self) -> None:
        """Stop in the order opposite to the start: running calls get 10 seconds, then tasks and connections end."""
        await self._closing.aclose()

    async def _start(self) -> None:
        self.settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._registry = new_registry()
        self._open_metrics(self._registry)
        keys = Keys.open(self.settings.home / "keys")
        self.tokens = Tokens(keys)
        paging.seal_with(keys.derived("page tokens"))
        if OWNER_OF_TOKENS in self.builds:
            ensure_home_token(self.settings.home / "token", self.tokens, self.settings.project)
        self._addresses.update(self.settings.addresses)
        self._channels = self._new_channels("platform")
        objects = await asyncio.to_thread(ObjectStore.open, self.settings.objects_url)
        await asyncio.to_thread(objects.sweep)
        made = await asyncio.gather(*(self._context(name, objects) for name in self.builds))
        self.contexts = {context.service: context for context in made}
        self.services = [build(self.contexts[name]) for name, build in self.builds.items()]
        server, trail = self._server()
        await self._prepare()
        tasks = Tasks()
        self._closing.push_async_callback(tasks.stop)
        await server.start()
        self._closing.push_async_callback(server.stop, GRACE_SECONDS)  # so it stops before the tasks
        self._run_tasks(tasks, trail)
        await self._first_denylist()

    def _open_metrics(self, registry: CollectorRegistry) -> None:
        if self.metrics_listen is not None:
            server = MetricsServer(self.metrics_listen, registry)
            self._closing.push_async_callback(asyncio.to_thread, server.close)
            self.metrics_address = server.address

    def _new_channels(self, service: str) -> Channels:
        tokens = ServiceTokens(self.tokens, f"service:{service}")
        channels = Channels(self._addresses, tokens, ca=self.settings.tls_ca, metadata=causes.outgoing)
        self._closing.push_async_callback(channels.close)
        return channels

    async def _context(self, service: str, objects: ObjectStore) -> Context:
        settings = self.settings
        credentials = _credentials(settings.nats_credentials, service)
        figures = EventFigures(service, self._registry)
        bus = await Bus.connect(settings.nats_url, credentials, service, figures=figures)
        self._closing.push_async_callback(bus.close)
        context = Context(service, settings, self.tokens, self._new_channels(service), bus, objects, self._registry)
        self._closing.push_async_callback(_close, context.databases)
        return context

    def _server(self) -> tuple[Server, AuditTrail]:
        settings = self.settings
        name = "-".join(sorted(self.builds)) or "none"
        trail = AuditTrail(settings.home / "audit" / f"{name[:100]}.pending", send_to_project(self._channels))
        self._closing.callback(trail.close)
        databases = {name: context.database() for name, context in self.contexts.items()}
        self._event_log = EventLogServicer(databases, {name: c.bus for name, c in self.contexts.items()})
        registrations = [servicer for service in self.services for servicer in service.servicers]
        server = Server(
            self.listen,
            [*registrations, registration(self._event_log)],
            self.tokens,
            Denylist(self._denied),
            registry=self._registry,
            audit=trail.record,
            tls=_tls(settings),
            reflected=api_services(),
        )
        self.address = server.bind()
        self._addresses.update({service.name: self.address for service in self.services})
        self._denylist = server.denylist
        return server, trail

    async def _denied(self) -> list[str]:
        stub = self._channels.stub(ProjectServiceStub, OWNER_OF_TOKENS)
        return list((await stub.ListDeniedTokens(ListDeniedTokensRequest(), timeout=2)).ids)

    async def _prepare(self) -> None:
        for service in self.services:
            self._closing.push_async_callback(service.close)
        work = {"events": self._event_log.prepare} | {service.name: service.prepare for service in self.services}
        await asyncio.gather(*(until_it_works(name, prepare, Unavailable) for name, prepare in work.items()))

    def _run_tasks(self, tasks: Tasks, trail: AuditTrail) -> None:
        tasks.start("audit", trail.run)
        for service in self.services:
            for number, work in enumerate(service.tasks):
                tasks.start(f"{service.name}-{number}-{getattr(work, '__qualname__', 'task')}", work)

    async def _first_denylist(self) -> None:
        """Wait until tokens can be checked, but not for a project service that is not there."""
        try:
            async with asyncio.timeout(FIRST_DENYLIST_SECONDS):
                await until_it_works("denylist", self._denylist.refresh, PenstockError)
        except TimeoutError:
            log.warning("users are refused until the project service answers")


async def _close(databases: dict[str, Database]) -> None:
    for database in databases.values():
        await database.close()


def _credentials(folder: Path | None, service: str) -> Path | None:
    """The NATS user of a service; None for a NATS without users."""
    if folder is None:
        return None
    file = folder / f"{service}.creds"
    if not file.exists():
        raise FailedPrecondition(f"NATS credentials of the service '{service}' are missing: {file} does not exist.")
    return file


def _tls(settings: Settings) -> TlsFiles | None:
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise InvalidArgument("TLS needs both PENSTOCK_TLS_CERTIFICATE and PENSTOCK_TLS_KEY.", field="PENSTOCK_TLS_KEY")
    return TlsFiles(settings.tls_certificate, settings.tls_key)
