"""The Import aggregate: a file on its way to records, and which state follows which. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from penstock.errors import FailedPrecondition
from penstock.store import Cause


class ImportState(Enum):
    """Where an import is."""

    UPLOADING = "uploading"
    STAGING = "staging"
    COMMITTING = "committing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Format(Enum):
    """What an imported file is."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True)
class Import:
    """The import of one file: `chunks` are the digests of its bytes, `parts` those of its staged records."""

    dataset: str
    id: str
    author: str
    source: str
    format: Format
    key_field: str
    size: int
    created: datetime
    label_field: str = ""
    digest: str = ""
    draft: str = ""
    cause: Cause = field(default_factory=Cause)
    state: ImportState = ImportState.UPLOADING
    received: int = 0
    chunks: tuple[str, ...] = ()
    chunk_sizes: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()
    records: int = 0
    missing: int = 0
    version: int = 0
    reason: str = ""
    ended: datetime | None = None

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"{self.dataset}/imports/{self.id}"

    @property
    def asked(self) -> tuple[object, ...]:
        """What was asked for: equal for a request and its repetition."""
        return (self.format, self.key_field, self.label_field, self.size, self.digest, self.draft)

    @property
    def own_draft(self) -> str:
        """The name of the draft that it commits by itself."""
        return f"{self.dataset}/drafts/import-{self.id}"

    @property
    def active(self) -> bool:
        """Whether the service has something to do for it."""
        return self.state in (ImportState.STAGING, ImportState.COMMITTING)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state in (ImportState.SUCCEEDED, ImportState.FAILED, ImportState.CANCELLED)

    def received_chunk(self, digest: str, size: int) -> Import:
        """The next bytes are kept; after the last of them it is staged."""
        received = self.received + size
        state = ImportState.STAGING if received == self.size else ImportState.UPLOADING
        return replace(
            self, state=state, received=received, chunks=(*self.chunks, digest), chunk_sizes=(*self.chunk_sizes, size)
        )

    def expect(self, *states: ImportState) -> None:
        """Raise FailedPrecondition unless it is in one of `states`."""
        if self.state not in states:
            raise FailedPrecondition(f"The import {self.id} is {self.state.value}.")

    def ended_as(self, state: ImportState, at: datetime, *, version: int = 0, reason: str = "") -> Import:
        """A final state."""
        return replace(self, state=state, ended=at, version=version, reason=reason)
