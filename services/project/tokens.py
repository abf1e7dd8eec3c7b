"""The use cases of tokens and of the members that hold them, and how a revocation reaches the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from penstock import names
from penstock.errors import AlreadyExists, InvalidArgument, NotFound
from penstock.events import NewEvent
from penstock.rpc.tokens import Tokens, new_token_id
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

    async def create(self, project: str, subject: str, role: str, ttl: timedelta | None) -> tuple[Stored[Token], str]:
        """Create a token; answers it and its text, which is stored nowhere."""
        await self.repository.projects.get(names.build("project", project))
        if not subject:
            raise InvalidArgument("Say who will use the token.", field="token.subject")
        names.check_key(subject, "token.subject")
        check_role(role, "token.role", await self._highest(project, subject))
        ttl, at, token_id = check_ttl(ttl, "token.ttl"), now(), new_token_id()
        name = names.build("token", project, token_id)
        # The document first: a token without one could never be listed or revoked.
        stored = await self.repository.tokens.create(name, Token(name, project, token_id, subject, role, at, at + ttl))
        try:
            # Again, now that whoever lowers the role can see the token: one of the two of us does.
            check_role(role, "token.role", await self._highest(project, subject))
        except InvalidArgument:
            await self.revoke(name)
            raise
        return stored, self.tokens.mint(subject, project, role, ttl.total_seconds(), token_id=token_id)

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

    async def set_member(self, name: str, role: str) -> Stored[Member]:
        """Add a member or change the role of one, and revoke the member's tokens that would exceed it."""
        parsed = names.parse(name, kind="member", field="member.name")
        name = str(parsed)  # a name has several spellings, a member has one
        await self.repository.projects.get(names.build("project", parsed.project))
        check_role(role, "member.role")
        try:
            stored = await self.repository.members.create(name, Member(name, parsed.project, parsed.id, role, now()))
        except AlreadyExists:
            stored = await self.repository.members.change(name, lambda m: m.with_role(role))
        await self._revoke_all(parsed.project, parsed.id, lambda token: exceeds(token.role, role))
        return stored

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
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH):  # wait_for may swallow a cancellation
                    await self.changed.wait()
            self.changed.clear()
