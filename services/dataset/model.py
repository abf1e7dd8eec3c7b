"""The dataset service's aggregates, and which state follows which. No I/O.

Dataset (holds the outbox), Version and Draft are one document each, as Import is (`imports.py`); the id of each is its
resource name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from penstock.errors import FailedPrecondition
from penstock.store import Cause
from services.dataset.values import NO_ROWS

CURRENT = 2**62  # `to` of a revision that nothing has superseded


class Origin(Enum):
    """What kind of hand made an edit."""

    PERSON = "person"
    IMPORT = "import"
    PIPELINE = "pipeline"


@dataclass(frozen=True)
class Edit:
    """Who changed a record, when, why, and through which draft or import (name)."""

    author: str
    time: datetime
    why: str
    origin: str
    source: str


@dataclass(frozen=True)
class Committing:
    """A version being written: from here on it can only be finished. `plan` is a digest, `draft` a name."""

    number: int
    plan: str
    draft: str


@dataclass(frozen=True)
class Dataset:
    """A dataset. Version n of it is every revision with from <= n < to; `head` is the newest version, 0 before any.

    `rows` is the sum of the head's row hashes (hex).
    """

    project: str
    id: str
    created: datetime
    updated: datetime
    description: str = ""
    key_field: str = ""
    label_field: str = ""
    head: int = 0
    records: int = 0
    rows: str = NO_ROWS
    committing: Committing | None = None

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"projects/{self.project}/datasets/{self.id}"

    def begin(self, number: int, plan: str, draft: str) -> Dataset:
        """Step (c) of a commit: the one decision, made on an unchanged head."""
        if self.committing is not None or number != self.head + 1:
            raise FailedPrecondition(f"{self.name} is at version {self.head} and cannot begin version {number}.")
        return replace(self, committing=Committing(number, plan, draft))


@dataclass(frozen=True)
class Version:
    """A version as its plan says it; visible once the dataset's head has reached it. `manifest` is set once."""

    dataset: str
    number: int
    message: str
    author: str
    created: datetime
    records: int
    added: int
    changed: int
    removed: int
    draft: str
    origin: str
    commit: str
    plan: str
    rows_digest: str
    manifest: str | None = None

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"{self.dataset}/versions/{self.number}"


class DraftState(Enum):
    """Where a draft is between its first edit and its version."""

    OPEN = "open"
    FROZEN = "frozen"
    COMMITTED = "committed"
    CONFLICTED = "conflicted"
    FAILED = "failed"


@dataclass(frozen=True)
class Conflict:
    """A record that both the draft and newer versions changed; texts are canonical JSON, None where there is none."""

    key: str
    fields: tuple[str, ...]
    version: int
    base: str | None = None
    theirs: str | None = None
    mine: str | None = None


@dataclass(frozen=True)
class Segment:
    """The edit batches 0 .. count-1 of a draft that were made over version `base`."""

    base: int
    count: int = 0


@dataclass(frozen=True)
class Draft:
    """Edits over a version. What they are is in a log of immutable batches; `segments` say which of them count.

    `layer` is new each time the draft is opened again after a commit. Freezing begins a new segment, so that a batch
    that comes too late is in none. `upsert`: no conflicts, the draft wins (an import's own draft).
    """

    dataset: str
    id: str
    owner: str
    layer: str
    created: datetime
    updated: datetime
    segments: tuple[Segment, ...]
    state: DraftState = DraftState.OPEN
    message: str = ""
    changes: int = 0
    origin: str = Origin.PERSON.value
    committer: str = ""
    upsert: bool = False
    key_field: str = ""
    label_field: str = ""
    frozen: datetime | None = None
    cause: Cause = field(default_factory=Cause)
    conflicts: tuple[Conflict, ...] = ()
    more_conflicts: int = 0
    version: int = 0
    reason: str = ""

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"{self.dataset}/drafts/{self.id}"

    @property
    def base(self) -> int:
        """The version that it lies over; after a conflict, the head that it was in conflict with."""
        return self.segments[-1].base

    @property
    def log(self) -> str:
        """Where its batches are: one log per opening."""
        return f"{self.name}/{self.layer}"

    @property
    def commit(self) -> str:
        """The identity of this freezing: what becomes at most one version."""
        return f"{self.log}/{len(self.segments)}"

    @property
    def settled(self) -> bool:
        """Whether a commit of it has ended."""
        return self.state in (DraftState.COMMITTED, DraftState.CONFLICTED, DraftState.FAILED)

    def appended(self, changes: int, at: datetime) -> Draft:
        """One more batch in the last segment; a draft in conflict is open again."""
        if self.state not in (DraftState.OPEN, DraftState.CONFLICTED, DraftState.FAILED):
            raise FailedPrecondition(f"The draft {self.id} is {self.state.value}: it cannot be edited now.")
        last = self.segments[-1]
        segments = (*self.segments[:-1], replace(last, count=last.count + 1))
        return replace(self, segments=segments, changes=changes, updated=at, state=DraftState.OPEN, reason="")

    def freeze(self, message: str, committer: str, cause: Cause, at: datetime) -> Draft:
        """Step (a) of a commit."""
        if self.state not in (DraftState.OPEN, DraftState.CONFLICTED, DraftState.FAILED):
            raise FailedPrecondition(f"The draft {self.id} is {self.state.value} already.")
        if not any(segment.count for segment in self.segments):
            raise FailedPrecondition(f"The draft {self.id} has no changes to commit.")
        segments = (*self.segments, Segment(self.segments[-1].base))
        return replace(
            self, state=DraftState.FROZEN, segments=segments, message=message, committer=committer, cause=cause,
            frozen=at, updated=at, conflicts=(), more_conflicts=0, reason="",
        )  # fmt: skip

    def committed(self, version: int, at: datetime) -> Draft:
        """It has become a version (or changed nothing, at `version`)."""
        return replace(
            self, state=DraftState.COMMITTED, version=version, updated=at, frozen=None, conflicts=(), reason=""
        )

    def conflicted(self, conflicts: tuple[Conflict, ...], more: int, head: int, at: datetime) -> Draft:
        """Newer versions changed the same; edits from now on are made over `head`."""
        segments = (*self.segments[:-1], Segment(head))
        return replace(
            self, state=DraftState.CONFLICTED, conflicts=conflicts, more_conflicts=more, segments=segments,
            updated=at, frozen=None,
            reason=f"{len(conflicts) + more} records were also changed by versions up to {head}.",
        )  # fmt: skip

    def failed(self, reason: str, at: datetime) -> Draft:
        """It cannot be committed as it is."""
        return replace(self, state=DraftState.FAILED, reason=reason, updated=at, frozen=None)
