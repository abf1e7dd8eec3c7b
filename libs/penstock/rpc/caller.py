"""Who is calling: the identity that a verified token gives to a request, for as long as the request runs."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import quote, unquote

from penstock.errors import Unauthenticated

VIEWER, EDITOR, ADMIN = "viewer", "editor", "admin"
SERVICE, RUNNER = "service", "runner"
AUTHORIZATION = "authorization"
ON_BEHALF_OF = "x-penstock-on-behalf-of"
ROLES = frozenset({VIEWER, EDITOR, ADMIN, SERVICE, RUNNER})


@dataclass(frozen=True)
class Caller:
    """A verified identity.

    `project` is the only project in which it may act; a `platform` token and a service (role `service`) may act in any,
    unless the service acts on somebody's behalf, which binds it to that project. `expires` is in Unix seconds.
    """

    subject: str
    project: str
    role: str
    token_id: str
    on_behalf_of: str = ""
    platform: bool = False
    expires: float = 0.0

    @property
    def actor(self) -> str:
        """Who wanted it: the one on whose behalf a service acts, else the subject of the token."""
        return self.on_behalf_of or self.subject

    def may_act_in(self, project: str) -> bool:
        """Whether the token is good for that project at all, whatever the role."""
        if self.platform or (self.role == SERVICE and not self.project):
            return True
        return bool(project) and project == self.project


_current: ContextVar[Caller | None] = ContextVar("penstock_caller", default=None)


def caller() -> Caller:
    """The caller of the running request. Raises Unauthenticated outside of one."""
    found = _current.get()
    if found is None:
        raise Unauthenticated("This needs a caller: call it within a request that carries a token.")
    return found


def set_caller(value: Caller | None) -> None:
    """Make `value` the caller for the rest of this task (the server's interceptor does it once a request)."""
    _current.set(value)


def encode_on_behalf_of(project: str, subject: str) -> str:
    """The text of the metadata entry `x-penstock-on-behalf-of`."""
    return f"{project}/{quote(subject, safe='')}"


def decode_on_behalf_of(text: str) -> tuple[str, str]:
    """Project and subject from that text. Raises Unauthenticated if it is malformed."""
    project, slash, subject = text.partition("/")
    if not (project and slash and subject):
        raise Unauthenticated("The metadata x-penstock-on-behalf-of is malformed: it must be <project>/<subject>.")
    return project, unquote(subject)
