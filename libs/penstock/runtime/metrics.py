"""Prometheus figures of a process: one registry, shown on a loopback port."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, start_http_server

from penstock.errors import FailedPrecondition
from penstock.rpc.addresses import check_listen, split


def new_registry() -> CollectorRegistry:
    """A registry that knows the process's own memory, CPU and open files already."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MetricsServer:
    """`GET /metrics` on `address` (`host:port`, port 0 for a free one), answered by a thread of its own.

    Raises InvalidArgument for an address beyond this machine (figures have no authentication; a cluster scrapes through
    a sidecar), FailedPrecondition if the port is taken.
    """

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        check_listen(address, tls=False)
        host, port = split(address)
        try:
            started = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise FailedPrecondition(f"{address} cannot be listened on for metrics: {error.strerror}.") from error
        self._server: WSGIServer = started[0]
        self._thread: threading.Thread = started[1]
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
