"""What the project service keeps: plain values and the rules about them, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from penstock.errors import InvalidArgument

ROLES = ("viewer", "editor", "admin")
DEFAULT_TTL = timedelta(days=30)
MAX_TTL = timedelta(days=365)
MAX_SECRET_BYTES = 64 * 1024


@dataclass(frozen=True)
class Project:
    """A space of names and of members."""

    name: str
    display_name: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True)
class Token:
    """What is known of a token; its text is not. `token_id` is its `jti` claim."""

    name: str
    project: str
    token_id: str
    subject: str
    role: str
    create_time: datetime
    expire_time: datetime
    revoke_time: datetime | None = None

    def revoked(self, at: datetime) -> Token:
        """The token, refused from `at` on; one that is revoked already stays as it is."""
        return self if self.revoke_time else replace(self, revoke_time=at)

    def denied(self, at: datetime) -> bool:
        """Whether it must be on the denylist: revoked, and not yet refused for its age."""
        return self.revoke_time is not None and self.expire_time > at


@dataclass(frozen=True)
class Member:
    """Somebody's role in a project."""

    name: str
    project: str
    subject: str
    role: str
    create_time: datetime

    def with_role(self, role: str) -> Member:
        """The member with a role; the same object if it has it."""
        return self if self.role == role else replace(self, role=role)


@dataclass(frozen=True)
class Secret:
    """A secret; `sealed` is its encrypted value."""

    name: str
    project: str
    sealed: str
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True)
class Publisher:
    """A NATS user that may publish a project's outside events."""

    name: str
    project: str
    create_time: datetime
    expire_time: datetime


def check_ttl(ttl: timedelta | None, field: str) -> timedelta:
    """How long a credential may live, the default for None; raises InvalidArgument below a second, beyond a year."""
    if ttl is None:
        return DEFAULT_TTL
    if not timedelta(seconds=1) <= ttl <= MAX_TTL:
        raise InvalidArgument(f"A validity is 1 second to {MAX_TTL.days} days.", field=field)
    return ttl


def exceeds(role: str, other: str) -> bool:
    """Whether a role may do more than the other one."""
    return ROLES.index(role) > ROLES.index(other)


def check_role(role: str, field: str, at_most: str = "admin") -> str:
    """Accept a role that is not higher than `at_most`; raises InvalidArgument."""
    if role not in ROLES:
        raise InvalidArgument(f"The role must be one of {', '.join(ROLES)}.", field=field)
    if exceeds(role, at_most):
        raise InvalidArgument(f"The member's role is {at_most}; a token cannot have more.", field=field)
    return role
