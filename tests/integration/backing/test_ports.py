"""Ports: free ones, each given out once, and the one that a server had."""

from __future__ import annotations

import json
import socket
from collections import deque
from pathlib import Path

import pytest

from penstock.backing import ports
from penstock.backing.ports import choose_port, free_port, keep_free, port_free
from penstock.backing.records import record_path
from penstock.errors import FailedPrecondition


def test_ports_are_free_and_outside_the_range_of_outgoing_connections() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    port = free_port()
    assert port_free(port)
    assert port < max(low, 32_000)


def test_a_port_is_given_out_once_though_nobody_listens_there_yet(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ports of a server are chosen before it listens on either."""
    free = [free_port(), free_port(), free_port()]
    before = {"pid": 1, "started": 1, "boot_id": "before", "marker": "", "facts": {"port": free[0]}}
    record_path(home, "sleeper").parent.mkdir(parents=True, exist_ok=True)
    record_path(home, "sleeper").write_text(json.dumps(before))
    monkeypatch.setattr(ports, "_given_out", deque(maxlen=10))
    monkeypatch.setattr("random.sample", lambda *_: free)
    assert choose_port(home, "sleeper", None) == free[0]  # the one that it had
    assert [free_port(), free_port()] == free[1:]


def test_a_wanted_port_in_use_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(FailedPrecondition, match=str(port)):
            choose_port(home, "sleeper", port)


def test_a_port_that_is_kept_for_a_server_is_given_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, other = free_port(), free_port()
    monkeypatch.setattr(ports, "_given_out", deque(maxlen=10))
    monkeypatch.setattr("random.sample", lambda *_: [wanted, other])
    keep_free(wanted)
    assert free_port() == other
