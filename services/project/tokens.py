"""The use cases of tokens and of the members that hold them, and how a revocation reaches the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from penstock import names
from penstock.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from penstock.events import NewEvent
from penstock.rpc.tokens import Tokens
from penstock.runtime.tasks import set_within
from penstock.store import Stored, now
from services.project.model import Member, Token, check_role, check_ttl, exceeds
from services.project.repository import Repository

REFRESH = 1.0  # seconds between looks at what is revoked: a quarter of what is promised


class Gate(Protocol):
    """What refuses denied tokens at the door: the edge."""

    def set_keys_and_denylist(self, jwks: str, denied: Collection[str]) -> object:
        """Replace the keys and the denied ids."""


@dataclass
class TokenCommands:
    """Create, revoke, and tell which are denied."""

    repository: Repository
    tokens: Tokens
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(
        self, project: str, token_id: str, subject: str, role: str, ttl: timedelta | None, request_id: str = ""
    ) -> tuple[Stored[Token], str]:
        """Create a token; answers it and its text, which is stored nowhere.

        The same request again, within a day, answers the same token with a text of it; raises FailedPrecondition if
        that was revoked meanwhile.
        """
        await self.repository.projects.get(names.build("project", project))
        if not subject:
            raise InvalidArgument("Say who will use the token.", field="token.subject")
        names.check_key(subject, "token.subject")
        check_role(role, "token.role", await self._highest(project, subject))
        ttl, at = check_ttl(ttl, "token.ttl"), now()
        name = names.build("token", project, token_id)
        # The document first: a token without one could never be listed or revoked.
        token = Token(name, project, token_id, subject, role, at, at + ttl)
        stored = await self.repository.tokens.create(name, token, request_id=request_id or None)
        token = stored.value  # an earlier one, if the request was
        try:
            # Again, now that whoever lowers the role can see the token: one of the two of us does.
            check_role(token.role, "token.role", await self._highest(project, token.subject))
        except InvalidArgument:
            await self.revoke(name)
            raise
        if token.revoke_time:
            raise FailedPrecondition(f"{name}, which this request made, was revoked: ask anew for another.")
        return stored, self._text(token)

    def _text(self, token: Token) -> str:
        ttl = (token.expire_time - token.create_time).total_seconds()
        issued = token.create_time.timestamp()
        return self.tokens.mint(token.subject, token.project, token.role, ttl, token_id=token.token_id, issued=issued)

    async def _highest(self, project: str, subject: str) -> str:
        """The highest role that a token of this subject may have; who is no member may be given any by an admin."""
        try:
            return (await self.repository.members.get(names.build("member", project, subject))).value.role
        except NotFound:
            return "admin"

    async def revoke(self, name: str) -> Stored[Token]:
        """Revoke a token; again changes nothing. Raises NotFound."""

        def transition(token: Token) -> tuple[Token, list[NewEvent]]:
            revoked = token.revoked(now())
            event = NewEvent("project.token.revoked", {"token": name, "subject": token.subject})
            return revoked, ([] if revoked is token else [event])

        stored = await self.repository.tokens.change(name, transition)
        self.changed.set()
        return stored

    async def update_member(
        self, name: str, role: Callable[[Member | None], str], *, allow_missing: bool
    ) -> Stored[Member]:
        """Change a member, and revoke the member's tokens that would exceed the role. NotFound without `allow_missing`.

        `role` answers what it shall be over what the member is (None: there is none yet).
        """
        parsed = names.parse(name, kind="member", field="member.name")
        name = str(parsed)  # a name has several spellings, a member has one
        await self.repository.projects.get(names.build("project", parsed.project))
        stored = await self._set_role(name, role, allow_missing)
        highest = stored.value.role
        await self._revoke_all(parsed.project, parsed.id, lambda token: exceeds(token.role, highest))
        return stored

    async def _set_role(self, name: str, role: Callable[[Member | None], str], allow_missing: bool) -> Stored[Member]:
        def transition(member: Member) -> Member:
            return member.with_role(check_role(role(member), "member.role"))

        try:
            return await self.repository.members.change(name, transition)
        except NotFound:
            if not allow_missing:
                raise
        resource = names.parse(name)
        first = Member(name, resource.project, resource.id, check_role(role(None), "member.role"), now())
        try:
            return await self.repository.members.create(name, first)
        except AlreadyExists:
            return await self.repository.members.change(name, transition)

    async def remove_member(self, name: str) -> None:
        """Remove a member and revoke the member's tokens in the project. Raises NotFound."""
        stored = await self.repository.members.get(str(names.parse(name, kind="member")))
        await self._revoke_all(stored.value.project, stored.value.subject, lambda token: True)
        await self.repository.members.delete(stored)

    async def _revoke_all(self, project: str, subject: str, which: Callable[[Token], bool]) -> None:
        found = await self.repository.tokens.find(
            eq={"subject": f"{project}/{subject}"}, where=lambda t: t.revoke_time is None and which(t)
        )
        for token in found:
            await self.revoke(token.id)

    async def denied(self) -> list[str]:
        """The ids that must be refused now."""
        return sorted(await self.repository.denied_tokens(now()))

    async def keep_edge(self, gate: Gate) -> None:
        """Tell the edge whenever the denied ids change; runs for ever."""
        told: list[str] | None = None
        while True:
            denied = await self.denied()
            if denied != told:
                await asyncio.to_thread(gate.set_keys_and_denylist, self.tokens.jwks(), denied)
                told = denied
            await set_within(self.changed, REFRESH)
            self.changed.clear()
