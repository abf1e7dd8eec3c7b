"""Endpoints and their members, as files that survive Envoy and the serving service, which owns them.

The folder is the state: cds.json is made from what is in it, so nothing else must be remembered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from penstock.edge import clusters, watches
from penstock.edge.files import Folder, Json, discovery, replace_json
from penstock.edge.model import EndpointKey, Member
from penstock.errors import InvalidArgument

log = structlog.get_logger(__name__)


class EndpointFiles:
    """Writes endpoints. One writer at a time."""

    folder: Folder

    def set_endpoint(
        self, project: str, endpoint: str, members: Sequence[Member], generation: int | None = None
    ) -> int:
        """Make an endpoint with these members, or replace them: HTTP and gRPC together, open connections included.

        `generation` counts up with each call for one endpoint and shows when Envoy uses it (`applied`); by default it
        is one more than the last. Returns it. Raises InvalidArgument without members, or for a revision named twice;
        ResourceExhausted where Envoy could not watch another endpoint.
        """
        if not members or len({m.revision for m in members}) != len(members):
            raise InvalidArgument("An endpoint needs members, each revision once; or remove it.", field="members")
        key = EndpointKey(project, endpoint)
        number = self.written_generation(project, endpoint) + 1 if generation is None else generation
        self._write_members(key, None, members, number)
        return number

    def remove_endpoint(self, project: str, endpoint: str) -> None:
        """Remove an endpoint with the clusters of its revisions: it answers 404 from then on. Again is no error."""
        key = EndpointKey(project, endpoint)
        self._remove([file for file in self._member_files() if belongs(file, key)])

    def set_revision_cluster(self, project: str, endpoint: str, member: Member, generation: int = 1) -> None:
        """Make a revision reachable by the pinned header (`x-penstock-revision`, service tokens only)."""
        self._write_members(EndpointKey(project, endpoint), member.revision, [member], generation)

    def remove_revision_cluster(self, project: str, endpoint: str, revision: int) -> None:
        """Take a revision's own cluster away. Again is no error."""
        key = EndpointKey(project, endpoint)
        self._remove([self._members_file(clusters.cluster_name(key, p, revision)) for p in clusters.PROTOCOLS])

    def endpoints(self) -> frozenset[tuple[str, str]]:
        """(project, endpoint) of all endpoints in the folder, those included that have pinned revisions only."""
        names = (clusters.cluster_of(file).split("/") for file in self._member_files())
        return frozenset((words[1], words[2]) for words in names)

    def revision_clusters(self, project: str, endpoint: str) -> frozenset[int]:
        """The revisions of an endpoint that have a cluster of their own."""
        key = EndpointKey(project, endpoint)
        names = (clusters.cluster_of(file).split("/") for file in self._member_files() if belongs(file, key))
        return frozenset(int(words[3]) for words in names if clusters.is_revision("/".join(words)))

    def written_generation(self, project: str, endpoint: str) -> int:
        """The generation that was written last, whether Envoy runs or not; 0 if there is no such endpoint."""
        key = EndpointKey(project, endpoint)
        files = [self._members_file(clusters.cluster_name(key, protocol)) for protocol in clusters.PROTOCOLS]
        if any(file.exists() and stored(file) is None for file in files):
            return 0  # so that it is written again
        return max((int(read(file)["version_info"]) for file in files if file.exists()), default=0)

    def addresses(self, project: str, endpoint: str, revision: int) -> frozenset[tuple[str, int]]:
        """Where a revision's servers listen, as (IP, port), in all clusters of its endpoint."""
        key = EndpointKey(project, endpoint)
        return frozenset(
            (socket["address"], int(socket["port_value"]))
            for file in self._member_files()
            if belongs(file, key)
            for host in read(file)["resources"][0]["endpoints"][0]["lb_endpoints"]
            if host["metadata"]["filter_metadata"][clusters.METADATA]["revision"] == f"{key.name}/revisions/{revision}"
            for socket in [host["endpoint"]["address"]["socket_address"]]
        )

    def serving(self) -> dict[tuple[str, str], frozenset[int]]:
        """The HTTP ports of the members that take requests, by (project, endpoint); none while all are suspended."""
        found = {}
        for file in self._member_files():
            cluster = clusters.cluster_of(file)
            if not cluster.endswith("/http") or clusters.is_revision(cluster):
                continue
            with suppress(FileNotFoundError):  # removed meanwhile
                hosts = read(file)["resources"][0]["endpoints"][0]["lb_endpoints"]
                _, project, endpoint, _ = cluster.split("/")
                found[project, endpoint] = frozenset(
                    int(host["endpoint"]["address"]["socket_address"]["port_value"])
                    for host in hosts
                    if host["health_status"] == "HEALTHY"
                )
        return found

    def _write_members(
        self, key: EndpointKey, revision: int | None, members: Sequence[Member], generation: int
    ) -> None:
        self.folder.prepare()
        names = [clusters.cluster_name(key, protocol, revision) for protocol in clusters.PROTOCOLS]
        if revision is None and not all(self._members_file(name).exists() for name in names):
            watched = [file for file in self._member_files() if not clusters.is_revision(clusters.cluster_of(file))]
            watches.check_free(len(names), len(watched))
        for name in names:
            replace_json(self._members_file(name), clusters.assignment(name, key, members, generation))
        self._write_clusters()

    def _remove(self, files: Sequence[Path]) -> None:
        """Clusters first, then their files: Envoy never looks for a file that is gone."""
        self._write_clusters(without=frozenset(files))
        for file in files:
            file.unlink(missing_ok=True)

    def _write_clusters(self, without: frozenset[Path] = frozenset()) -> None:
        """Make the file of all clusters anew, from what the folder has, if that changes it."""
        with self.folder.locked():
            services = stored(self.folder.services) or {}
            resources = [clusters.service_cluster(name, address) for name, address in sorted(services.items())]
            resources += [_cluster(file) for file in self._member_files() if file not in without]
            document = discovery(resources)
            if stored(self.folder.clusters) != document:
                replace_json(self.folder.clusters, document)

    def _members_file(self, cluster: str) -> Path:
        return self.folder.members / clusters.file_name(cluster)

    def _member_files(self) -> list[Path]:
        """The files that can be read; a damaged one is as good as none, and is written again by its owner."""
        return sorted(file for file in self.folder.members.glob("endpoint.*.json") if stored(file) is not None)


def _cluster(file: Path) -> Json:
    name = clusters.cluster_of(file)
    if clusters.is_revision(name):
        return clusters.revision_cluster(name, read(file))
    return clusters.endpoint_cluster(name, file)


def belongs(file: Path, key: EndpointKey) -> bool:
    """Whether a file of members is one of this endpoint's."""
    return clusters.cluster_of(file).startswith(clusters.prefix(key))


def read(file: Path) -> Json:
    """A file that this package wrote."""
    content: Json = json.loads(file.read_bytes())
    return content


def stored(file: Path) -> Json | None:
    """As `read`; None for a file that is not there, or that is damaged: all of them can be made anew."""
    try:
        return read(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.error("a damaged file counts as none", file=str(file), error=str(error))
        return None
