"""What the running Envoy does with the files: which generation it uses, what is running, what it answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from penstock.edge import access_log, clusters
from penstock.edge.access_log import AccessRecord, Position
from penstock.edge.admin import Admin
from penstock.edge.endpoints import EndpointFiles, read
from penstock.edge.files import Json
from penstock.edge.keys import KeyFiles
from penstock.edge.model import Attempts, EndpointKey
from penstock.errors import FailedPrecondition, Unavailable

_POLL = 0.02  # seconds; Envoy applies a file within some milliseconds


class Observed(KeyFiles, EndpointFiles):
    """Asks the Envoy of this folder."""

    @property
    def admin(self) -> Admin:
        """Envoy's admin interface; its port is in the folder. Raises FailedPrecondition before `write_base`."""
        try:
            address = read(self.folder.bootstrap)["admin"]["address"]["socket_address"]
        except FileNotFoundError as error:
            raise FailedPrecondition("The edge was never configured: start the platform first.") from error
        return Admin(int(address["port_value"]))

    async def generation(self, project: str, endpoint: str) -> int:
        """The generation that Envoy's config_dump shows for both HTTP and gRPC; 0 if it does not know the endpoint."""
        key = EndpointKey(project, endpoint)
        found = await self.admin.generations(clusters.prefix(key))
        return min(found.get(clusters.cluster_name(key, protocol), 0) for protocol in clusters.PROTOCOLS)

    async def applied(self, project: str, endpoint: str, generation: int, timeout: float = 5.0) -> None:
        """Wait until Envoy uses that generation of an endpoint or a later one. Raises Unavailable after `timeout` s."""

        async def uses() -> bool:
            return await self.generation(project, endpoint) >= generation

        await self._until(uses, timeout, f"generation {generation} of endpoint {endpoint}")

    async def revision_applied(self, project: str, endpoint: str, revision: int, timeout: float = 5.0) -> None:
        """Wait until Envoy uses a revision's own cluster as it is written. Raises Unavailable after `timeout` s."""
        key = EndpointKey(project, endpoint)
        names = [clusters.cluster_name(key, protocol, revision) for protocol in clusters.PROTOCOLS]
        wanted = {name: int(read(self._members_file(name))["version_info"]) for name in names}

        async def uses() -> bool:
            found = await self.admin.generations(clusters.prefix(key))
            return all(found.get(name) == number for name, number in wanted.items())

        await self._until(uses, timeout, f"the cluster of revision {revision} of endpoint {endpoint}")

    async def removed(self, project: str, endpoint: str, timeout: float = 5.0) -> None:
        """Wait until Envoy has forgotten an endpoint. Raises Unavailable after `timeout` seconds."""
        prefix = clusters.prefix(EndpointKey(project, endpoint))

        async def forgot() -> bool:
            return not any(name.startswith(prefix) for name in await self.admin.clusters())

        await self._until(forgot, timeout, f"the removal of endpoint {endpoint}")

    async def keys_applied(self, timeout: float = 5.0) -> None:
        """Wait until Envoy uses the keys and the denylist of the folder. Raises Unavailable after `timeout` seconds."""
        wanted = {_inline(read(file)["resources"][0]) for file in (self.folder.jwt, self.folder.identity)}

        async def uses() -> bool:
            return wanted <= {_inline(config) for config in await self.admin.filter_configs()}

        await self._until(uses, timeout, "keys and denylist")

    async def rq_active(self, project: str, endpoint: str, revision: int) -> int:
        """Requests that a revision is answering now, by HTTP, gRPC and pinned together."""
        prefix = clusters.prefix(EndpointKey(project, endpoint))
        return await self.admin.active_requests(prefix, self.addresses(project, endpoint, revision))

    async def attempts(self, project: str, endpoint: str, revisions: Iterable[int]) -> dict[int, Attempts]:
        """What became of what these revisions were sent, by HTTP and gRPC together; what was pinned is not counted."""
        key = EndpointKey(project, endpoint)
        found = await self.admin.attempts([clusters.cluster_name(key, protocol) for protocol in clusters.PROTOCOLS])
        return {
            revision: _sum([found[at] for at in self.addresses(project, endpoint, revision) if at in found])
            for revision in revisions
        }

    def access_log(self, since: Position | None = None) -> tuple[list[AccessRecord], Position]:
        """What endpoints answered after `since` (default: all there is), and where to go on. Comes up to 0.2 s late."""
        return access_log.read(self.folder.access_log, since or Position())

    def access_log_end(self) -> Position:
        """The position after all that was written so far."""
        return access_log.end(self.folder.access_log)

    async def rotate_access_log(self, max_bytes: int = 256 << 20) -> bool:
        """Begin a new access log if this one is larger; the one before is deleted. Returns whether it did."""
        log = self.folder.access_log
        moved = access_log.rotated(log).exists() and not log.exists()  # and not opened again, for whatever reason
        if access_log.end(log).offset <= max_bytes and not moved:
            return False
        if not moved:
            access_log.rotate(log)
        await self.admin.reopen_logs()
        return True

    async def _until(self, condition: Callable[[], Awaitable[bool]], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while not await condition():
            if time.monotonic() > deadline:
                refused = await self.admin.refused()
                raise Unavailable(f"Envoy did not apply {what} in {timeout:g} s; it refused: {refused or 'nothing'}.")
            await asyncio.sleep(_POLL)


def _sum(parts: Sequence[Attempts]) -> Attempts:
    return Attempts(sum(p.count for p in parts), sum(p.failed for p in parts), any(p.ejected for p in parts))


def _inline(extension: Json) -> str:
    """What changes in a filter that came over ECDS: the key set, or the script."""
    config = extension.get("typed_config", {})
    source = config.get("default_source_code") or config.get("providers", {}).get("penstock", {}).get("local_jwks", {})
    return str(source.get("inline_string", ""))
