"""The metrics endpoint stays on this machine and gives its port back."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client import Counter

from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.runtime.metrics import MetricsServer, new_registry


def test_figures_are_shown_and_the_port_is_free_afterwards() -> None:
    registry = new_registry()
    Counter("penstock_test_things", "Things.", registry=registry).inc(3)
    server = MetricsServer("127.0.0.1:0", registry)
    with pytest.raises(FailedPrecondition, match="cannot be listened on"):
        MetricsServer(server.address, registry)
    with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=5) as answer:
        assert "penstock_test_things_total 3.0" in answer.read().decode()
    server.close()
    MetricsServer(server.address, registry).close()


def test_figures_are_not_shown_to_the_network() -> None:
    with pytest.raises(InvalidArgument, match="without TLS"):
        MetricsServer("0.0.0.0:0", new_registry())
