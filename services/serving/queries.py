"""Reads of revisions, which are in their endpoint's document or, when they are old, rows."""

from __future__ import annotations

from penstock.names import ResourceName
from penstock.store import Stored
from services.serving.model import Endpoint, Revision
from services.serving.repository import Repository

_BEYOND = 10**12  # above every number


async def find_revision(repository: Repository, name: ResourceName) -> tuple[Stored[Endpoint], Revision]:
    """A revision and its endpoint. Raises NotFound."""
    stored = await repository.endpoints.get(name.parent)
    return stored, await repository.revision(stored.value, name.number)


async def list_revisions(
    repository: Repository, endpoint: str, size: int, before: int | None
) -> tuple[Stored[Endpoint], list[Revision], int | None]:
    """A page of an endpoint's revisions with numbers below `before`, newest first, and where the next page begins."""
    stored = await repository.endpoints.get(endpoint)
    limit = _BEYOND if before is None else int(before)
    archived = await repository.archived(endpoint, limit, size + 1)
    found = {revision.number: revision for revision in archived}
    found |= {revision.number: revision for revision in stored.value.revisions if revision.number < limit}
    ordered = sorted(found.values(), key=lambda revision: -revision.number)
    return stored, ordered[:size], ordered[size - 1].number if len(ordered) > size else None
