"""Envoy as a managed process: up only when it really listens, adopted, and never two on one port."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.backing.envoy import EnvoyServer, admin_port
from penstock.backing.ports import free_port, port_free
from penstock.backing.process import http_ok
from penstock.backing.supervisor import Backoff, Supervisor
from penstock.errors import FailedPrecondition, Unavailable
from tests.integration.backing.waiting import until


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _http(port: int) -> dict[str, Any]:
    """A listener that answers 200 to everything."""
    kind = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}}
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"name": "edge", "address": _address(port), "enable_reuse_port": False, "filter_chains": [chain]}


def _server(home: Path, port: int, listener: dict[str, Any] | None = None) -> EnvoyServer:
    admin = admin_port(home)
    folder = home / "envoy"
    folder.mkdir(exist_ok=True)
    kind = "type.googleapis.com/envoy.config.listener.v3.Listener"
    (folder / "lds.json").write_text(json.dumps({"resources": [{"@type": kind, **(listener or _http(port))}]}))
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(folder / "lds.json")}}
    bootstrap = {
        "node": {"id": "edge", "cluster": "penstock"},
        "admin": {"address": _address(admin)},
        "dynamic_resources": {"lds_config": source},
    }
    (folder / "bootstrap.json").write_text(json.dumps(bootstrap))
    arguments = ["-c", str(folder / "bootstrap.json"), "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
    return EnvoyServer(home, arguments, port, admin)


@pytest.fixture
async def envoy(home: Path) -> AsyncIterator[EnvoyServer]:
    server = _server(home, free_port())
    await server.start(attached=True)
    yield server
    await server.stop(grace=1)


async def test_it_answers_when_start_returns_and_leaves_nothing_in_shared_memory(home: Path) -> None:
    before = set(os.listdir("/dev/shm"))
    server = _server(home, free_port())
    process = await server.start(attached=True)
    assert await http_ok(server.port, "/")
    regions = [entry for entry in os.listdir("/dev/shm") if entry not in before and "envoy" in entry]
    assert regions == []
    await server.stop()
    assert not process.alive()
    assert port_free(server.port)


async def test_a_new_parent_adopts_it_with_its_admin_port(envoy: EnvoyServer) -> None:
    heir = _server(envoy.home, envoy.port)
    process = await heir.start()
    assert envoy.process is not None
    assert process.identity == envoy.process.identity
    assert heir.admin_port == envoy.admin_port


async def test_a_new_parent_that_wants_another_port_gets_another_envoy(envoy: EnvoyServer) -> None:
    heir = _server(envoy.home, free_port())
    await heir.start(attached=True)
    assert await http_ok(heir.port, "/")
    assert port_free(envoy.port)
    await heir.stop(grace=1)


async def test_it_is_restarted_on_its_port_when_killed(envoy: EnvoyServer) -> None:
    supervisor = Supervisor(Backoff(first=0.01))
    supervisor.watch("envoy", envoy.start)
    assert envoy.process is not None
    killed = envoy.process.identity
    os.kill(killed.pid, signal.SIGKILL)
    await until(lambda: envoy.process is not None and envoy.process.identity != killed and not port_free(envoy.port))
    await supervisor.close()
    await envoy.start(attached=True)
    assert await http_ok(envoy.port, "/")


async def test_a_port_in_use_is_named(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port := free_port()))
        taken.listen()
        with pytest.raises(FailedPrecondition, match=rf"port {port}, where envoy must listen, is in use"):
            await _server(home, port).start(attached=True)


async def test_a_second_platform_cannot_share_the_port(envoy: EnvoyServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(FailedPrecondition, match=str(envoy.port)):
        await _server(tmp_path / "other", envoy.port).start(attached=True)


async def test_a_listener_that_envoy_rejects_is_an_error_with_its_log(home: Path) -> None:
    port = free_port()
    server = _server(home, port, {"name": "edge", "address": _address(port), "filter_chains": [{"filters": [{}]}]})
    with pytest.raises(Unavailable, match=r"rejected|error"):
        await server.start(attached=True)
    assert server.process is not None
    assert not server.process.alive()


async def test_a_bootstrap_that_is_no_bootstrap_is_an_error_with_its_log(home: Path) -> None:
    server = _server(home, free_port())
    (home / "envoy" / "bootstrap.json").write_text("{")
    with pytest.raises(Unavailable, match=r"ended while starting"):
        await server.start(attached=True)
