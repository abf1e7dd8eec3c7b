"""The edge of one platform: all that may be said to its Envoy, each concern by its own owner."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from penstock.edge import clusters, descriptors, filters, listener, routes
from penstock.edge.files import Folder, replace, replace_json
from penstock.edge.model import Tls, check_port, is_loopback
from penstock.edge.observed import Observed
from penstock.errors import FailedPrecondition


class Edge(Observed):
    """The configuration of one Envoy in `root`, such as `<home>/envoy`.

    Writing is by files and needs no running Envoy, which applies them within milliseconds, or when it starts next.
    Each owner is one process: the starter (`write_base`), the project service (`set_keys_and_denylist`), the serving
    service (endpoints).
    """

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root.absolute())

    def write_base(
        self,
        *,
        port: int,
        admin_port: int,
        jwks: str,
        services: Mapping[str, str],
        descriptor_set: bytes | Path,
        reflection: str = "project",
        host: str = "127.0.0.1",
        tls: Tls | None = None,
        denied: Collection[str] | None = None,
    ) -> None:
        """Write listeners, filters, routes and services. Endpoints stay as they are.

        `services` maps each service to `host:port` of its gRPC server; `reflection` names the one that answers gRPC
        reflection and health. `descriptor_set` is that of `proto/`. `denied` None keeps the denylist that there is.
        Admin (metrics too) is on loopback. Raises FailedPrecondition for a public `host` without `tls`.
        """
        check_port(port, "port")
        check_port(admin_port, "admin_port")
        if not is_loopback(host) and tls is None:
            raise FailedPrecondition(
                f"Tokens would be sent in the clear on {host}: give a certificate, or use 127.0.0.1."
            )
        for name, address in services.items():
            clusters.parse_address(address, f"services.{name}")
        folder = self.folder
        api, kserve, spoken = _described(descriptor_set, services)
        api_file, kserve_file = self._descriptor("api", api), self._descriptor("kserve", kserve)
        chain = filters.chain(folder.jwt, folder.identity, kserve_file, api_file, spoken)
        listeners = listener.resource(folder, chain, host, port, tls)
        routed = routes.resource(services, reflection)
        self._write_keys(jwks, denied)  # checks them, and makes the folder: nothing is written before this
        replace(api_file, api)
        replace(kserve_file, kserve)
        replace_json(folder.services, dict(services))
        self._write_clusters()
        replace_json(folder.routes, routed)
        replace_json(folder.listeners, listeners)
        replace_json(folder.bootstrap, listener.bootstrap(folder, admin_port))
        for file in folder.root.glob("*.pb"):
            if file not in (api_file, kserve_file):
                file.unlink()

    def move_services(self, services: Mapping[str, str]) -> None:
        """Say where the services are now."""
        replace_json(self.folder.services, dict(services))
        self._write_clusters()

    def arguments(self, concurrency: int | None = None) -> list[str]:
        """Envoy's arguments; `concurrency` is its number of worker threads (default: one per core)."""
        return listener.arguments(self.folder, concurrency)

    def _descriptor(self, name: str, content: bytes) -> Path:
        """Named by content: Envoy reads a descriptor again only where its configuration names another file."""
        return self.folder.root / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.pb"


def _described(descriptor_set: bytes | Path, services: Iterable[str]) -> tuple[bytes, bytes, list[str]]:
    """Our API's descriptors, KServe's, and the full names of those services of ours that are there."""
    content = descriptor_set if isinstance(descriptor_set, bytes) else descriptor_set.read_bytes()
    api = descriptors.complete(content)
    mine = tuple(f"penstock.api.{name}." for name in services)
    spoken = [name for name in descriptors.services_of(api) if name.startswith(mine)]
    kserve = descriptors.kserve()
    return api.SerializeToString(deterministic=True), kserve.SerializeToString(deterministic=True), spoken
