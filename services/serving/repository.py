"""What serving keeps: endpoints with their latest revisions, and the older revisions as rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from penstock.errors import NotFound
from penstock.events.envelope import NewEvent
from penstock.store import Aggregates, Database, Page, Rows, Span, Stored, format_time, parse_time
from services.serving import facts
from services.serving.model import Endpoint, Revision, RevisionState, Transition

_TIMES = ("created", "ready", "ended")


class Repository:
    """Endpoints and revisions, in the database of this service."""

    def __init__(self, database: Database) -> None:
        self.endpoints = Aggregates(
            database,
            "endpoints",
            Endpoint,
            indexes={"project": lambda endpoint: endpoint.project, "name": lambda endpoint: endpoint.name},
        )
        self._old = Rows(database, "revisions", indexes=("at", "request"))

    async def prepare(self) -> None:
        """Make the indexes."""
        await self.endpoints.prepare()
        await self._old.prepare()

    async def change(
        self, name: str, transition: Transition, *, request: str | None = None, etag: str = ""
    ) -> Stored[Endpoint]:
        """Apply a transition of the model, its facts in the same write; one of a `request` that was applied, not again.

        Raises what the transition raises, NotFound, and Conflict for an `etag` that is not the endpoint's.
        """

        def apply(endpoint: Endpoint) -> Endpoint | tuple[Endpoint, list[NewEvent]]:
            outcome = transition(endpoint)
            return (outcome[0], [NewEvent.of(fact) for fact in outcome[1]]) if isinstance(outcome, tuple) else outcome

        return await self.endpoints.change(name, apply, request_id=request, etag=etag)

    async def remove(self, stored: Stored[Endpoint], moment: datetime) -> None:
        """Delete an endpoint; its revisions stay as rows, so that no number is given twice. Raises Conflict."""
        endpoint = stored.value
        ended = {
            r.number: RevisionState.FAILED if r.state is RevisionState.FAILED else RevisionState.REMOVED
            for r in endpoint.revisions
        }
        gone = [replace(r, state=ended[r.number], ended=r.ended or moment, clean=True) for r in endpoint.revisions]
        await self.archive(endpoint.name, gone)
        news = facts.traffic_changed(endpoint, endpoint.generation + 1, ())
        await self.endpoints.delete(stored, [NewEvent.of(news)])

    async def list_endpoints(self, project: str, limit: int, after: str | None) -> Page[Stored[Endpoint]]:
        """A page of a project's endpoints, by name."""
        return await self.endpoints.find(eq={"project": project}, order_by="name", limit=limit, after=after)

    async def all_endpoints(self) -> list[Stored[Endpoint]]:
        """Every endpoint of every project."""
        return (await self.endpoints.find()).items

    async def archive(self, endpoint: str, revisions: Iterable[Revision]) -> None:
        """Keep revisions as rows, durable on return; those that are there already stay as they are."""
        await self._old.insert([_row(endpoint, revision) for revision in revisions])

    async def archived(self, endpoint: str, before: int, limit: int) -> list[Revision]:
        """The newest archived revisions of an endpoint with a number below `before`."""
        span = Span("at", gte=f"{endpoint}/", lt=_at(endpoint, before))
        rows = await self._old.find(span=span, order_by="at", descending=True, limit=limit)
        return [_revision(row) for row in rows]

    async def archived_by_request(self, request: str) -> Revision | None:
        """The archived revision that a request made."""
        rows = await self._old.find(eq={"request": request}, limit=1)
        return _revision(rows[0]) if rows else None

    async def revision(self, endpoint: Endpoint, number: int) -> Revision:
        """A revision of an endpoint, archived or not. Raises NotFound."""
        found = endpoint.revision(number)
        if found is None:
            row = await self._old.get(_at(endpoint.name, number))
            if row is None:
                raise NotFound(f"{endpoint.revision_name(number)} does not exist.")
            found = _revision(row)
        return found

    async def last_number(self, endpoint: str) -> int:
        """The highest number of an archived revision; endpoints that are deleted leave theirs."""
        found = await self.archived(endpoint, 10**12, 1)
        return found[0].number if found else 0


def _at(endpoint: str, number: int) -> str:
    return f"{endpoint}/{number:012d}"


def _row(endpoint: str, revision: Revision) -> dict[str, Any]:
    fields = {key: value for key, value in vars(revision).items() if value is not None}
    times = {key: format_time(value) for key, value in fields.items() if isinstance(value, datetime)}
    where = _at(endpoint, revision.number)
    return {**fields, **times, "steps": list(revision.steps), "state": str(revision.state), "_id": where, "at": where}


def _revision(row: dict[str, Any]) -> Revision:
    fields = {key: value for key, value in row.items() if key not in ("_id", "at")}
    fields |= {key: parse_time(fields[key]) for key in _TIMES if key in fields}
    return Revision(**{**fields, "steps": tuple(fields["steps"]), "state": RevisionState(fields["state"])})
