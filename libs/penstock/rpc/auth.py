"""Authorization of one call: its token, what the method demands, and the projects that the request names.

The edge checks the same tokens; this check is the one that counts: whoever reaches a service's port is past the edge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from google.protobuf.message import Message

from penstock.errors import PermissionDenied, Unauthenticated
from penstock.rpc.access import Access, Method
from penstock.rpc.caller import (
    ADMIN,
    AUTHORIZATION,
    EDITOR,
    ON_BEHALF_OF,
    RUNNER,
    SERVICE,
    VIEWER,
    Caller,
    decode_on_behalf_of,
)
from penstock.rpc.denylist import Denylist
from penstock.rpc.tokens import Tokens

_RANK = {VIEWER: 1, EDITOR: 2, ADMIN: 3, SERVICE: 3}
_NEEDED = {Access.VIEWER: 1, Access.EDITOR: 2, Access.ADMIN: 3}
_ROLE_NAME = {Access.VIEWER: VIEWER, Access.EDITOR: EDITOR, Access.ADMIN: ADMIN}


@dataclass(frozen=True)
class Authorizer:
    """Decides who calls and whether the call may go on."""

    tokens: Tokens
    denylist: Denylist

    def identify(self, metadata: Mapping[str, str]) -> Caller:
        """The caller of a call. Raises Unauthenticated, or Unavailable while the denylist is too old."""
        scheme, _, text = metadata.get(AUTHORIZATION, "").partition(" ")
        if scheme and scheme.lower() != "bearer":
            raise Unauthenticated("The authorization metadata must be `Bearer <token>`.")
        caller = self.tokens.verify(text.strip())
        self.denylist.check(caller)
        wanted = metadata.get(ON_BEHALF_OF)
        if wanted is None:
            return caller
        if caller.role != SERVICE:
            raise PermissionDenied(f"Only a service of Penstock may send {ON_BEHALF_OF}.")
        project, subject = decode_on_behalf_of(wanted)
        return replace(caller, project=project, on_behalf_of=subject)

    def admit(self, caller: Caller, method: Method) -> None:
        """Whether the caller's role is enough for the method. Raises PermissionDenied."""
        access = method.access
        if access is Access.RUNNER:
            allowed = caller.role in (RUNNER, SERVICE)
        elif access is Access.INTERNAL:
            allowed = caller.role == SERVICE
        elif access is Access.PLATFORM:
            allowed = caller.platform or caller.role == SERVICE
        else:
            allowed = _RANK.get(caller.role, 0) >= _NEEDED[access]
        if not allowed:
            raise PermissionDenied(f"{method.name} {_demand(access)}; '{caller.subject}' is {_description(caller)}.")

    def check_request(self, caller: Caller, method: Method, request: Message) -> None:
        """Whether the caller may do that to what the request names. Raises PermissionDenied or InvalidArgument."""
        for project in method.projects(request):
            if not caller.may_act_in(project):
                raise PermissionDenied(f"The token is for project '{caller.project}'; the request names another one.")
        if method.access is Access.RUNNER and caller.role == RUNNER:
            resource = method.resource(request)
            if resource != caller.subject and not resource.startswith(caller.subject + "/"):
                raise PermissionDenied(f"The token is for {caller.subject} alone; the request is about another.")


def _demand(access: Access) -> str:
    if access in _ROLE_NAME:
        return f"needs the role {_ROLE_NAME[access]} in the project"
    if access is Access.PLATFORM:
        return "needs a token of the platform, such as the one in its home directory"
    return "is for jobs of Penstock only" if access is Access.RUNNER else "is for services of Penstock only"


def _description(caller: Caller) -> str:
    return "a job" if caller.role == RUNNER else f"{caller.role} in '{caller.project}'"


def plain_metadata(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """The text entries of a call's metadata; of an entry that comes twice, the first."""
    plain: dict[str, str] = {}
    for key, value in metadata or ():
        if isinstance(value, str):
            plain.setdefault(key, value)
    return plain
