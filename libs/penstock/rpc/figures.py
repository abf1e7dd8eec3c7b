"""Prometheus figures of a server: calls by method and code, how long they took, how many are running."""

from __future__ import annotations

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from penstock.rpc.access import Method

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Figures:
    """The metrics of one process's server, registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("service", "method")
        self._calls = Counter("penstock_rpc_calls", "Calls that ended.", (*labels, "code"), registry=registry)
        self._seconds = Histogram(
            "penstock_rpc_seconds", "How long calls took.", labels, registry=registry, buckets=_SECONDS
        )
        self._running = Gauge("penstock_rpc_running", "Calls that are running.", labels, registry=registry)

    def began(self, method: Method) -> None:
        """Count a call in."""
        self._running.labels(method.service, method.name).inc()

    def ended(self, method: Method, code: grpc.StatusCode, seconds: float) -> None:
        """Count a call out."""
        self._running.labels(method.service, method.name).dec()
        self._calls.labels(method.service, method.name, code.name).inc()
        self._seconds.labels(method.service, method.name).observe(seconds)
