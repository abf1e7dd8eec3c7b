"""One gRPC server per process, with everything around the servicers that each of them would otherwise bring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from penstock.errors import FailedPrecondition
from penstock.rpc.access import methods_of
from penstock.rpc.addresses import TlsFiles, check_listen, split
from penstock.rpc.auth import Authorizer
from penstock.rpc.calls import DEFAULT_DEADLINE_SECONDS, Audit, CallInterceptor
from penstock.rpc.denylist import Denylist
from penstock.rpc.figures import Figures
from penstock.rpc.options import MAX_METADATA_BYTES, MESSAGE_OPTIONS
from penstock.rpc.reflection import ReflectionGuard
from penstock.rpc.tokens import Tokens

log = structlog.get_logger(__name__)

MAX_STREAMS_PER_CONNECTION = 1000
MAX_CALLS = 2000
GRACE_SECONDS = 10.0
_OPTIONS: list[tuple[str, Any]] = [
    *MESSAGE_OPTIONS,
    # Two processes must not share a port: the second one shall fail, not take half of the connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
]


@dataclass(frozen=True)
class Registration:
    """One servicer: the generated `add_…_to_server`, the servicer, and the full name of its service."""

    add: Callable[..., None]
    servicer: Any
    service: str


class Server:
    """A gRPC server on `address` (`host:port`; port 0 picks a free one) for `registrations`.

    `audit` is called after each call that wanted to change something. `reflected` lists the services that reflection
    shows, those of this process by default. Making one raises MissingAccess for a method that does not say who may call
    it, and InvalidArgument for an address beyond this machine without `tls`.
    """

    def __init__(
        self,
        address: str,
        registrations: Sequence[Registration],
        tokens: Tokens,
        denylist: Denylist,
        *,
        registry: CollectorRegistry | None = None,
        audit: Audit | None = None,
        tls: TlsFiles | None = None,
        reflected: Iterable[str] | None = None,
        deadline: float = DEFAULT_DEADLINE_SECONDS,
    ) -> None:
        check_listen(address, tls=tls is not None)
        self._asked = address
        self._tls = tls
        self.denylist = denylist
        self._services = [registration.service for registration in registrations]
        authorizer = Authorizer(tokens, denylist)
        self._calls = CallInterceptor(
            methods_of(self._services),
            authorizer,
            Figures(registry if registry is not None else CollectorRegistry()),
            audit,
            deadline,
        )
        around = [self._calls, ReflectionGuard(authorizer)]
        self._server = grpc.aio.server(interceptors=around, options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        for registration in registrations:
            registration.add(registration.servicer, self._server)
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        shown = self._services if reflected is None else reflected
        reflection.enable_server_reflection([*shown, HEALTH, reflection.SERVICE_NAME], self._server)
        self._polling: asyncio.Task[None] | None = None
        self.address = ""

    def bind(self) -> str:
        """Take the port, and give the address that it is; calls are answered after `start`.

        Raises FailedPrecondition if the port is taken.
        """
        try:
            if self._tls is not None:
                port = self._server.add_secure_port(self._asked, self._tls.credentials())
            else:
                port = self._server.add_insecure_port(self._asked)
        except RuntimeError as error:
            raise FailedPrecondition(
                f"{self._asked} cannot be listened on: another process has the port. Stop it or choose another port."
            ) from error
        self.address = f"{self._asked.rpartition(':')[0]}:{port}"
        return self.address

    async def start(self) -> str:
        """Answer calls; gives the address. The denylist is polled from now on."""
        if not self.address:
            self.bind()
        await self._server.start()
        self._polling = asyncio.create_task(self.denylist.run())
        for service in self._services:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        log.info("listening", address=self.address, services=self._services)
        return self.address

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """Stop gracefully: no new calls, open streams end, running calls get `grace` seconds to finish."""
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self._server.stop(grace))
        await asyncio.sleep(0)  # new calls are refused before the open streams are ended
        await self._calls.drain()
        await stopping
        await self._calls.drain()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    @property
    def port(self) -> int:
        """The port that the server has."""
        return split(self.address)[1]
