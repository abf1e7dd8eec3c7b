"""What Envoy says about itself on its admin port (loopback): what it has applied, what is running, what it refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from penstock.edge.clusters import METADATA
from penstock.edge.model import Attempts
from penstock.errors import Unavailable

_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Admin:
    """Envoy's admin interface. All methods raise Unavailable where Envoy does not answer."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def generations(self, cluster_prefix: str = "") -> dict[str, int]:
        """Cluster -> the generation of its members that Envoy uses, for endpoints' clusters with that prefix."""
        found: dict[str, int] = {}
        for kind in ("dynamic", "static"):
            query = f"include_eds&resource={kind}_endpoint_configs&name_regex={quote(cluster_prefix)}.*"
            dump = await self._json(f"/config_dump?{query}")
            for entry in dump.get("configs", []):
                config = entry["endpoint_config"]
                generations = [int(host["generation"]) for host in _facts(config) if host]
                if generations:
                    found[config["cluster_name"]] = min(generations)
        return found

    async def clusters(self) -> frozenset[str]:
        """The names of all clusters that Envoy uses now."""
        return frozenset(status["name"] for status in await self._statuses())

    async def active_requests(self, cluster_prefix: str, addresses: Iterable[tuple[str, int]]) -> int:
        """Requests that are running now at `addresses`, in clusters whose name begins with the prefix."""
        wanted = set(addresses)
        return sum(
            _stat(host, "rq_active")
            for status in await self._statuses()
            if status["name"].startswith(cluster_prefix)
            for host in status.get("host_statuses", [])
            if _address(host) in wanted
        )

    async def attempts(self, clusters: Collection[str]) -> dict[tuple[str, int], Attempts]:
        """Address -> what became of what was sent there, for the members of these clusters."""
        return {
            _address(host): Attempts(
                _stat(host, "rq_success") + _stat(host, "rq_error"),
                _stat(host, "rq_error"),
                bool(host.get("health_status", {}).get("failed_outlier_check")),
            )
            for status in await self._statuses()
            if status["name"] in clusters
            for host in status.get("host_statuses", [])
        }

    async def filter_configs(self) -> list[dict[str, Any]]:
        """The configurations of filters that came over ECDS and are in use."""
        dump = await self._json("/config_dump?resource=ecds_filters")
        return [entry["ecds_filter"] for entry in dump.get("configs", []) if "ecds_filter" in entry]

    async def refused(self) -> dict[str, int]:
        """Stat -> how many updates Envoy refused since it started (it kept what it had)."""
        stats = await self._json("/stats?format=json&filter=update_rejected|config_fail")
        return {s["name"]: int(s["value"]) for s in stats.get("stats", []) if int(s.get("value", 0))}

    async def ready(self) -> bool:
        """Whether Envoy has all of its first configuration and serves."""
        try:
            info = await self._json("/server_info")
        except Unavailable:
            return False
        return bool(info.get("state") == "LIVE")

    async def uptime(self) -> float:
        """Seconds since this Envoy started: less than before means that it was restarted."""
        info = await self._json("/server_info")
        return float(str(info["uptime_current_epoch"]).removesuffix("s"))

    async def reopen_logs(self) -> None:
        """Make Envoy write to a new access log, after the old one was moved aside."""
        await self._call("POST", "/reopen_logs")

    async def _statuses(self) -> list[dict[str, Any]]:
        found = await self._json("/clusters?format=json")
        return list(found.get("cluster_statuses", []))

    async def _json(self, path: str) -> dict[str, Any]:
        return dict(await self._call("GET", path))

    async def _call(self, method: str, path: str) -> Any:
        url = URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.request(method, url, raise_for_status=True) as response,
            ):
                return await response.json(content_type=None) if method == "GET" else None
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise Unavailable(f"Envoy's admin interface (port {self.port}) does not answer: {error}") from error


def _facts(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        host.get("metadata", {}).get("filter_metadata", {}).get(METADATA, {})
        for group in config.get("endpoints", [])
        for host in group.get("lb_endpoints", [])
    ]


def _stat(host: dict[str, Any], name: str) -> int:
    return sum(int(stat.get("value", 0)) for stat in host.get("stats", []) if stat["name"] == name)


def _address(host: dict[str, Any]) -> tuple[str, int]:
    socket = host.get("address", {}).get("socket_address", {})
    return str(socket.get("address", "")), int(socket.get("port_value", 0))
