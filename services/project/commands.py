"""The use cases of projects, secrets, publishers and the audit log; those of tokens and members are beside this."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from penstock import names
from penstock.errors import AlreadyExists, InvalidArgument
from penstock.events import NewEvent
from penstock.events.credentials import Authority, external_permissions, mint
from penstock.store import Stored, now
from services.project.model import MAX_SECRET_BYTES, Project, Publisher, Secret, check_ttl
from services.project.repository import Repository
from services.project.vault import Vault


@dataclass
class Projects:
    """What may be done with projects and what belongs to them, but for tokens and members."""

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

    async def create_secret(self, project: str, secret_id: str, value: bytes, request_id: str = "") -> Stored[Secret]:
        """Store a secret; raises AlreadyExists."""
        if not value or len(value) > MAX_SECRET_BYTES:
            raise InvalidArgument(f"A secret is 1 to {MAX_SECRET_BYTES} bytes.", field="secret.value")
        name = names.build("secret", project, names.check_id(secret_id, "secret_id"))
        await self.repository.projects.get(names.build("project", project))
        at, sealed = now(), self.vault.seal(value)
        secret = Secret(name, project, sealed, at, at)
        return await self.repository.secrets.create(name, secret, request_id=request_id or None)

    async def read_secret(self, name: str) -> bytes:
        """The value of a secret; raises NotFound."""
        return self.vault.open((await self.repository.secrets.get(name)).value.sealed)

    async def create_publisher(
        self, project: str, publisher_id: str, ttl: timedelta | None, request_id: str = ""
    ) -> tuple[Stored[Publisher], str]:
        """Mint NATS credentials for outside events of a project, which are stored nowhere; raises AlreadyExists.

        The same request again, within a day, mints others of the same user, which end with the first.
        """
        if self.authority is None:
            raise InvalidArgument("This platform's NATS has no signing key here: mint users with `nsc`.")
        name = names.build("publisher", project, names.check_id(publisher_id, "publisher_id"))
        await self.repository.projects.get(names.build("project", project))
        ttl, at = check_ttl(ttl, "publisher.ttl"), now()
        publisher = Publisher(name, project, at, at + ttl)
        stored = await self.repository.publishers.create(name, publisher, request_id=request_id or None)
        user = f"{project}_{publisher_id}"  # ids hold no "_": no two users share an inbox
        left = (stored.value.expire_time - at).total_seconds()
        return stored, mint(self.authority, user, external_permissions(user, project), left)

    async def record(self, entries: Iterable[dict[str, Any]]) -> None:
        """Append to the audit log. Each entry has `time` (aware), `subject`, `method`, `resource`, `outcome`, …"""
        await self.repository.audit.insert([_audit_row(entry) for entry in entries])


def _audit_row(entry: dict[str, Any]) -> dict[str, Any]:
    """A row: its order is by time, and its id follows from what it says, so that one that is sent again is one row."""
    at: datetime = entry["time"]
    told = {**entry, "time": at.isoformat()}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]
    order = f"{at.timestamp():020.6f}-{digest}"
    project, of_token = _project_of(entry.get("resource", "")), entry.get("token_project", "")
    if of_token and entry["outcome"] == "PERMISSION_DENIED":
        project = of_token  # else anybody could write into the log of any project
    who = entry.get("on_behalf_of") or entry["subject"]
    return {**told, "_id": order, "order": order, "project": project, "project_subject": f"{project}/{who}"}


def _project_of(resource: str) -> str:
    """The project under which an entry is listed; "-" for calls about none, or about something misspelt."""
    try:
        return names.project_of(resource)
    except InvalidArgument:
        return "-"
