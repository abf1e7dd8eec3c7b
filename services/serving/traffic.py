"""The edge as one writer uses it: the wanted members of endpoints, written in threads, one change at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from penstock import names
from penstock.edge import AccessRecord, Attempts, Edge, Member, Position
from services.serving.model import Endpoint

T = TypeVar("T")
Address = tuple[int, int]  # the ports of HTTP and gRPC


class Traffic:
    """Writes and asks about endpoints at the edge. Raises Unavailable where Envoy does not answer."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self._turn = asyncio.Lock()

    async def apply(self, endpoint: Endpoint, addresses: Mapping[int, Address]) -> None:
        """Write the wanted members under the wanted generation, and wait until Envoy uses them."""
        project, id = key_of(endpoint.name)
        if not endpoint.members:
            await self.remove(endpoint.name)
            return
        members = [Member(m.revision, *addresses[m.revision], m.weight) for m in endpoint.shares]
        await self._write(lambda: self.edge.set_endpoint(project, id, members, endpoint.generation))
        await self.edge.applied(project, id, endpoint.generation)

    def is_written(self, endpoint: Endpoint, addresses: Mapping[int, Address]) -> bool:
        """Whether the files say what is wanted, at the addresses where it is."""
        project, id = key_of(endpoint.name)
        if not endpoint.members:
            return self.edge.written_generation(project, id) == 0
        return self.edge.written_generation(project, id) == endpoint.generation and all(
            {port for _, port in self.edge.addresses(project, id, member.revision)} == set(addresses[member.revision])
            for member in endpoint.members
        )

    def written_generation(self, name: str) -> int:
        """The generation in the files; 0 if there is no such endpoint."""
        return self.edge.written_generation(*key_of(name))

    async def pin(self, name: str, revision: int, address: Address) -> None:
        """Make a revision reachable by the pinned header, and wait until it is."""
        await self.write_pin(name, revision, address)
        await self.edge.revision_applied(*key_of(name), revision)

    async def write_pin(self, name: str, revision: int, address: Address) -> None:
        """Make a revision reachable by the pinned header.

        Its generation is its address, so that one that came back elsewhere is not taken for the one before.
        """
        project, id = key_of(name)
        member, generation = Member(revision, *address), (address[0] << 16) + address[1]
        await self._write(lambda: self.edge.set_revision_cluster(project, id, member, generation))

    async def unpin(self, name: str, revision: int) -> None:
        """Take a revision's own cluster away."""
        project, id = key_of(name)
        if revision in self.edge.revision_clusters(project, id):
            await self._write(lambda: self.edge.remove_revision_cluster(project, id, revision))

    async def remove(self, name: str) -> None:
        """Take an endpoint and its revisions out, and wait until Envoy has forgotten it."""
        project, id = key_of(name)
        await self._write(lambda: self.edge.remove_endpoint(project, id))
        await self.edge.removed(project, id)

    async def active(self, name: str, revision: int) -> int:
        """Requests that a revision is answering now."""
        project, id = key_of(name)
        return await self.edge.rq_active(project, id, revision)

    async def forget(self, name: str) -> None:
        """Take an endpoint out, whether Envoy runs or not."""
        await self._write(lambda: self.edge.remove_endpoint(*key_of(name)))

    def endpoints(self) -> frozenset[str]:
        """The names of all endpoints in the files."""
        return frozenset(names.build("endpoint", *key) for key in self.edge.endpoints())

    def log_end(self) -> Position:
        """Where in the access log the next answer will be."""
        return self.edge.access_log_end()

    async def answers(self, since: Position) -> tuple[list[AccessRecord], Position]:
        """What endpoints answered after `since`, and where to go on."""
        return await asyncio.to_thread(self.edge.access_log, since)

    async def attempts(self, name: str, *revisions: int) -> dict[int, Attempts]:
        """What became of what revisions were sent since they are members."""
        return await self.edge.attempts(*key_of(name), revisions)

    async def is_up(self) -> bool:
        """Whether Envoy runs."""
        return await self.edge.admin.ready()

    async def keep_log_short(self) -> None:
        """Begin a new access log if this one is large. Raises Unavailable if Envoy does not answer."""
        await self.edge.rotate_access_log()

    async def began(self) -> tuple[float, float]:
        """When this Envoy was started, in monotonic seconds: at the earliest, and at the latest."""
        asked = time.monotonic()
        uptime = await self.edge.admin.uptime()  # whole seconds, as it was at some time until now
        return asked - uptime - 1, time.monotonic() - uptime

    async def _write(self, change: Callable[[], T]) -> T:
        async with self._turn:
            writing = asyncio.ensure_future(asyncio.to_thread(change))
            try:
                return await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait([writing])  # the thread cannot be stopped: whoever writes next must find it done
                raise


def key_of(name: str) -> tuple[str, str]:
    """The project and the id of an endpoint."""
    endpoint = names.parse(name, kind="endpoint")
    return endpoint.project, endpoint.id
