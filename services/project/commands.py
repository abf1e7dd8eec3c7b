"""The use cases of projects, members, secrets and publishers; those of tokens are in tokens.py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from penstock import names
from penstock.errors import AlreadyExists, InvalidArgument
from penstock.events import NewEvent
from penstock.events.credentials import Authority, external_permissions, mint
from penstock.store import Stored, now
from services.project.model import MAX_SECRET_BYTES, Member, Project, Publisher, Secret, check_role, check_ttl
from services.project.repository import Repository
from services.project.vault import Vault


@dataclass
class Projects:
    """What may be done with projects and what belongs to them, but for tokens."""

    repository: Repository
    vault: Vault
    authority: Authority | None
    nats_url: str

    async def create(self, project_id: str, display_name: str, subject: str, request_id: str) -> Stored[Project]:
        """Create a project; raises AlreadyExists."""
        name = names.build("project", names.check_id(project_id, "project_id"))
        at = now()
        project = Project(name, display_name or project_id, at, at)
        created = NewEvent("project.created", {"project": name, "subject": subject})
        return await self.repository.projects.create(name, project, [created], request_id=request_id or None)

    async def ensure(self, project_id: str) -> None:
        """Create a project unless it is there; for the default one of an embedded platform."""
        try:
            await self.create(project_id, "", "penstock", "")
        except AlreadyExists:
            return

    async def set_member(self, name: str, role: str) -> Stored[Member]:
        """Add a member or change the role of one."""
        parsed = names.parse(name, kind="member", field="member.name")
        await self.repository.projects.get(names.build("project", parsed.project))
        check_role(role, "member.role")
        member = Member(name, parsed.project, parsed.id, role, now())
        try:
            return await self.repository.members.create(name, member)
        except AlreadyExists:
            return await self.repository.members.change(name, lambda m: replace(m, role=role))

    async def put_secret(self, project: str, secret_id: str, value: bytes) -> Stored[Secret]:
        """Store a secret or replace its value."""
        if not value or len(value) > MAX_SECRET_BYTES:
            raise InvalidArgument(f"A secret is 1 to {MAX_SECRET_BYTES} bytes.", field="secret.value")
        name = names.build("secret", project, names.check_id(secret_id, "secret_id"))
        await self.repository.projects.get(names.build("project", project))
        at, sealed = now(), self.vault.seal(value)
        try:
            return await self.repository.secrets.create(name, Secret(name, project, sealed, at, at))
        except AlreadyExists:
            return await self.repository.secrets.change(name, lambda s: replace(s, sealed=sealed, update_time=at))

    async def read_secret(self, name: str) -> bytes:
        """The value of a secret; raises NotFound."""
        return self.vault.open((await self.repository.secrets.get(name)).value.sealed)

    async def create_publisher(self, project: str, publisher_id: str, ttl: timedelta) -> tuple[Stored[Publisher], str]:
        """Mint NATS credentials for outside events of a project; answers them once."""
        if self.authority is None:
            raise InvalidArgument("This platform's NATS has no signing key here: mint users with `nsc`.")
        name = names.build("publisher", project, names.check_id(publisher_id, "publisher_id"))
        await self.repository.projects.get(names.build("project", project))
        ttl, at = check_ttl(ttl, "publisher.ttl"), now()
        stored = await self.repository.publishers.create(name, Publisher(name, project, at, at + ttl))
        user = f"{project}-{publisher_id}"
        return stored, mint(self.authority, user, external_permissions(user, project), ttl.total_seconds())

    async def record(self, entries: Iterable[dict[str, Any]]) -> None:
        """Append to the audit log. Each entry has `time` (aware), `subject`, `method`, `resource`, `outcome`, …"""
        await self.repository.audit.insert([_audit_row(entry) for entry in entries])


def _audit_row(entry: dict[str, Any]) -> dict[str, Any]:
    """A row: the log's order is by time, ties broken by a random tail that also makes the id."""
    at: datetime = entry["time"]
    resource = entry.get("resource", "")
    project = names.project_of(resource) if resource.startswith("projects/") else entry.get("project", "") or "-"
    order = f"{at.timestamp():020.6f}-{os.urandom(4).hex()}-{time.monotonic_ns() % 1_000_000:06}"
    who = entry.get("on_behalf_of") or entry["subject"]
    row = {**entry, "_id": order, "order": order, "project": project, "project_subject": f"{project}/{who}"}
    row["time"] = at.isoformat()
    return row
