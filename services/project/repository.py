"""The project service's documents and the questions asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from penstock import names
from penstock.errors import NotFound
from penstock.store import Aggregates, Database, Document, Page, Rows, Span
from services.project.model import Member, Project, Publisher, Secret, Token


class Repository:
    """All collections of this service."""

    def __init__(self, database: Database) -> None:
        self.projects = Aggregates(database, "projects", Project)
        self.tokens = Aggregates(
            database,
            "tokens",
            Token,
            indexes={
                "project": lambda t: t.project,
                "subject": lambda t: f"{t.project}/{t.subject}",
                # Only revoked tokens have the field, so the denylist costs what was revoked.
                "revoked": lambda t: t.expire_time if t.revoke_time else None,
            },
        )
        self.members = Aggregates(database, "members", Member, indexes={"project": lambda m: m.project})
        self.secrets = Aggregates(database, "secrets", Secret, indexes={"project": lambda s: s.project})
        self.publishers = Aggregates(database, "publishers", Publisher, indexes={"project": lambda p: p.project})
        self.audit = Rows(database, "audit", indexes=("project", "project_subject", "order"))

    async def prepare(self) -> None:
        """Make the indexes."""
        for collection in self.with_outbox():
            await collection.prepare()
        await self.audit.prepare()

    def with_outbox(self) -> Sequence[Aggregates[Any]]:
        """All aggregates, for the relay."""
        return (self.projects, self.tokens, self.members, self.secrets, self.publishers)

    async def denied_tokens(self, at: datetime) -> list[str]:
        """The ids of tokens that are revoked and not yet expired."""
        found = await self.tokens.find(span=Span("revoked", gt=at))
        return [stored.value.token_id for stored in found]

    async def audit_entry(self, name: names.ResourceName) -> Document:
        """One audit entry. Raises NotFound."""
        row = await self.audit.get(name.id)
        if row is None or row["project"] != name.project:
            raise NotFound(f"{name} does not exist.")
        return row

    async def audit_page(self, project: str, subject: str, limit: int, after: str | None) -> Page[Document]:
        """Audit entries of a project, newest first; of one subject if given."""
        which = {"project_subject": f"{project}/{subject}"} if subject else {"project": project}
        return await self.audit.find(eq=which, order_by="order", descending=True, limit=limit, after=after)
