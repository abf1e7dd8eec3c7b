"""The edge of one platform: all that may be said to its Envoy, each concern by its own owner."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
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
        folder = self.folder
        folder.prepare()
        if denied is None:
            denied = self.keys().denied if folder.keys.exists() else ()
        self.set_keys_and_denylist(jwks, denied)
        chain = self._chain(services, descriptor_set)
        backends = [self._service(name, address) for name, address in sorted(services.items())]
        self._write_clusters(self._member_files())
        replace_json(folder.routes, routes.resource(services, reflection))
        replace_json(folder.listeners, listener.resource(folder, chain, host, port, tls))
        replace_json(folder.bootstrap, listener.bootstrap(folder, admin_port, backends))

    def arguments(self, concurrency: int | None = None) -> list[str]:
        """Envoy's arguments; `concurrency` is its number of worker threads (default: one per core)."""
        return listener.arguments(self.folder, concurrency)

    def _chain(self, services: Mapping[str, str], descriptor_set: bytes | Path) -> list[dict[str, object]]:
        content = descriptor_set if isinstance(descriptor_set, bytes) else descriptor_set.read_bytes()
        described = descriptors.complete(content)
        mine = tuple(f"penstock.api.{name}." for name in services)
        spoken = [name for name in descriptors.services_of(described) if name.startswith(mine)]
        api = self._descriptor("api", described.SerializeToString(deterministic=True))
        kserve = self._descriptor("kserve", descriptors.kserve().SerializeToString(deterministic=True))
        return filters.chain(self.folder.jwt, self.folder.identity, kserve, api, spoken)

    def _service(self, name: str, address: str) -> dict[str, object]:
        members = self.folder.services / f"{name}.json"
        cluster = clusters.service_cluster(name, address, members)
        if cluster["type"] == "EDS":
            replace_json(members, clusters.service_assignment(name, address))
        return cluster

    def _descriptor(self, name: str, content: bytes) -> Path:
        """Named by content: Envoy reads a descriptor again only where its configuration names another file."""
        path = self.folder.root / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.pb"
        replace(path, content)
        return path
