"""Endpoints and revisions: what they are, what is wanted of them, and what the edge was seen to do.

An endpoint is one document, its latest revisions inside: a step, the traffic that it wants and its events are one
write. `members` is the wanted division, `generation` counts its changes, `observed` is the generation that the edge
was seen to use; only then does `traffic` follow, and a revision serve or fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from google.protobuf.message import Message

from penstock import names

KEPT = 20  # revisions in the document; older ones that ended are rows beside it
WHOLE = 100  # per cent


class RevisionState(StrEnum):
    """As in the API; each but the first three is written together with the traffic that it stands for."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    VERIFYING = "VERIFYING"
    SHIFTING = "SHIFTING"
    SERVING = "SERVING"
    DRAINING = "DRAINING"
    REMOVED = "REMOVED"
    FAILED = "FAILED"


COMING = frozenset({RevisionState.PENDING, RevisionState.STARTING, RevisionState.VERIFYING, RevisionState.SHIFTING})
ENDED = frozenset({RevisionState.REMOVED, RevisionState.FAILED})
FOLLOWED = frozenset({RevisionState.SERVING, *ENDED})  # where a watcher stops


@dataclass(frozen=True)
class Revision:
    """One deployment of a model version. `hold` is in seconds.

    `reason` is why it is, or is about to be, FAILED; `clean` says that nothing of it is left on the machine.
    """

    number: int
    model_version: str
    artifact: str
    author: str
    created: datetime
    steps: tuple[int, ...] = (WHOLE,)
    hold: float = 5.0
    request: str = ""  # the request that made it: the same one again makes no other
    state: RevisionState = RevisionState.PENDING
    step: int = 0
    reason: str = ""
    ready: datetime | None = None
    ended: datetime | None = None
    clean: bool = False
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True)
class Member:
    """A revision's share of the requests in per cent; 0: it takes nothing new and ends what it has."""

    revision: int
    weight: int


@dataclass(frozen=True)
class Endpoint:
    """One endpoint. `serving` is the revision that had all the traffic last, `previous` the one before (0: none).

    `suspended` revisions get no requests until they were started again and answered their examples.
    """

    name: str
    project: str
    created: datetime
    updated: datetime
    revisions: tuple[Revision, ...] = ()
    last: int = 0  # the highest number ever given to a revision
    serving: int = 0
    previous: int = 0
    members: tuple[Member, ...] = ()
    suspended: tuple[int, ...] = ()
    generation: int = 0
    observed: int = 0
    traffic: tuple[Member, ...] = ()
    deleting: bool = False

    @property
    def id(self) -> str:
        """The name that clients ask for."""
        return names.parse(self.name, kind="endpoint").id

    def revision(self, number: int) -> Revision | None:
        """A revision that is in the document."""
        return next((revision for revision in self.revisions if revision.number == number), None)

    def revision_name(self, number: int) -> str:
        """The resource name of a revision; "" for 0."""
        return f"{self.name}/revisions/{number}" if number else ""

    @property
    def candidate(self) -> Revision | None:
        """The revision whose turn it is: the oldest that does not serve yet."""
        return next((revision for revision in self.revisions if revision.state in COMING), None)

    def wanted_weight(self, number: int) -> int:
        """The share that a revision should have."""
        return next((member.weight for member in self.members if member.revision == number), 0)

    @property
    def shares(self) -> tuple[Member, ...]:
        """What the edge is to give each member now: nothing to suspended ones, so that the others share it.

        A revision that was given everything and died before it was seen to have it: what serves answers on.
        """
        weights = {m.revision: 0 if m.revision in self.suspended else m.weight for m in self.members}
        if self.serving in weights and self.serving not in self.suspended and not any(weights.values()):
            weights[self.serving] = WHOLE
        return tuple(Member(revision, weight) for revision, weight in weights.items())

    def weight(self, number: int) -> int:
        """The share that a revision was seen to have."""
        return next((member.weight for member in self.traffic if member.revision == number), 0)

    @property
    def state(self) -> str:
        """As in the API."""
        if self.deleting:
            return "DELETING"
        if not self.serving:
            return "PENDING"
        return "SHIFTING" if self.candidate else "READY"


Change: TypeAlias = Endpoint | tuple[Endpoint, tuple[Message, ...]]
Transition: TypeAlias = Callable[[Endpoint], Change]
