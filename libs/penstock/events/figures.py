"""Prometheus figures of one service's events: published how late, handled how, and how many wait."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from penstock.store import now

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)


class _Families:
    """What is registered once in a registry, for all services of its process."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.delay = Histogram(
            "penstock_events_publish_delay_seconds",
            "From the write that an event is of until the stream has it.",
            ("service",),
            registry=registry,
            buckets=_SECONDS,
        )
        self.published = Counter(
            "penstock_events_published",
            "Events that the stream has, by their type: runs that failed, versions committed, revisions that serve, …",
            ("service", "type"),
            registry=registry,
        )
        self.handled = Counter(
            "penstock_events_handled",
            "Events that a consumer applied, failed with (they are tried again), or gave up (dead letters).",
            ("service", "consumer", "outcome"),
            registry=registry,
        )
        self.held = Gauge(
            "penstock_events_held",
            "Messages that a consumer has and is not done with.",
            ("service", "consumer"),
            registry=registry,
        )


_OF: weakref.WeakKeyDictionary[CollectorRegistry, _Families] = weakref.WeakKeyDictionary()


class EventFigures:
    """Those of one service in a registry; without one they are shown nowhere."""

    def __init__(self, service: str = "", registry: CollectorRegistry | None = None) -> None:
        self._service = service
        if registry is not None and registry not in _OF:
            _OF[registry] = _Families(registry)
        self._families = _Families(None) if registry is None else _OF[registry]
        self._delay = self._families.delay.labels(service)

    def published(self, type: str, time: datetime) -> None:
        """The stream has an event of that type that was written at `time`."""
        self._families.published.labels(self._service, type).inc()
        self._delay.observe(max(0.0, (now() - time).total_seconds()))

    def handled(self, consumer: str, outcome: str) -> None:
        """A consumer was done with an event: `applied`, `failed` or `dead`."""
        self._families.handled.labels(self._service, consumer, outcome).inc()

    def holding(self, consumer: str, count: Callable[[], int]) -> None:
        """Ask `count` for how many messages a consumer holds, whenever the figures are looked at."""
        self._families.held.labels(self._service, consumer).set_function(count)
