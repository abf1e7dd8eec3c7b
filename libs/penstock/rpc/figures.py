"""Prometheus figures of a server: calls by method and code, how long they took, how many are running."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from penstock.rpc.access import Method

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class _OfMethod:
    running: Gauge
    seconds: Histogram
    calls: dict[grpc.StatusCode, Counter]


class Figures:
    """The metrics of one process's server, registered in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("service", "method")
        self._calls = Counter("penstock_rpc_calls", "Calls that ended.", (*labels, "code"), registry=registry)
        self._seconds = Histogram(
            "penstock_rpc_seconds", "How long calls took.", labels, registry=registry, buckets=_SECONDS
        )
        self._methods: dict[str, _OfMethod] = {}
        self._running = Gauge("penstock_rpc_running", "Calls that are running.", labels, registry=registry)

    def began(self, method: Method) -> None:
        """Count a call in."""
        self._of(method).running.inc()

    def ended(self, method: Method, code: grpc.StatusCode, seconds: float) -> None:
        """Count a call out."""
        found = self._of(method)
        found.running.dec()
        found.seconds.observe(seconds)
        if code not in found.calls:
            found.calls[code] = self._calls.labels(method.service, method.name, code.name)
        found.calls[code].inc()

    def _of(self, method: Method) -> _OfMethod:
        """The series of one method, looked up once: doing it by labels costs as much as a small call."""
        if method.path not in self._methods:
            labels = (method.service, method.name)
            self._methods[method.path] = _OfMethod(self._running.labels(*labels), self._seconds.labels(*labels), {})
        return self._methods[method.path]
