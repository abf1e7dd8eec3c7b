"""The plan of a version: everything that it is, decided once, immutable and found by its digest.

Whoever holds the plan can finish the version without looking anything up, and finishing it twice changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime

from penstock.objects import ObjectStore
from penstock.store import Cause
from penstock.store.converter import from_document, to_document
from services.dataset.ingest.stage import read_part
from services.dataset.model import CURRENT, Dataset, Edit, Version
from services.dataset.repository import Revision, revision_id
from services.dataset.values import rows_digest


@dataclass(frozen=True)
class Chunk:
    """Some changes: rows of a stored part. `rows` None: all of it; `superseded` None: all of them are new.

    `superseded[i]` is the number of the revision that row `rows[i]` replaces or removes, 0 for none.
    """

    payload: str
    rows: tuple[int, ...] | None = None
    superseded: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Operation:
    """One change: the record's text (None: removed), the number of the revision it ends (0: none), and who."""

    key: str
    text: str | None
    superseded: int
    edit: Edit


@dataclass(frozen=True)
class Plan:
    """What version `number` will be over its predecessor."""

    dataset: str
    number: int
    draft: str
    commit: str
    message: str
    author: str
    origin: str
    time: datetime
    edits: tuple[Edit, ...]
    chunks: tuple[Chunk, ...]
    records: int
    rows: str
    added: int = 0
    changed: int = 0
    removed: int = 0
    key_field: str = ""
    label_field: str = ""
    cause: Cause = field(default_factory=Cause)

    def version(self, digest: str) -> Version:
        """The version's document, given the plan's own digest."""
        return Version(
            self.dataset, self.number, self.message, self.author, self.time, self.records, self.added, self.changed,
            self.removed, self.draft, self.origin, self.commit, digest, rows_digest(self.rows),
        )  # fmt: skip

    def published(self, dataset: Dataset) -> Dataset:
        """Step (e): the dataset with this version as its head."""
        return replace(
            dataset, updated=self.time, head=self.number, records=self.records, rows=self.rows, committing=None,
            key_field=dataset.key_field or self.key_field, label_field=self.label_field or dataset.label_field,
        )  # fmt: skip

    def operations(self, objects: ObjectStore, chunk: Chunk) -> list[Operation]:
        """The changes of one chunk; blocks. Raises NotFound, DataCorrupt."""
        stored = read_part(objects, chunk.payload)
        rows = range(len(stored.keys)) if chunk.rows is None else chunk.rows
        superseded = chunk.superseded or (0,) * len(rows)
        return [
            Operation(stored.keys[row], stored.texts[row], before, self.edits[stored.edits[row]])
            for row, before in zip(rows, superseded, strict=True)
        ]

    def revision(self, operation: Operation) -> Revision:
        """The revision that a change which is no removal makes."""
        assert operation.text is not None
        return Revision(operation.key, self.number, CURRENT, operation.text, operation.edit)


def superseded_id(operation: Operation) -> str:
    """The id of the revision that a change ends."""
    return revision_id(operation.key, operation.superseded)


def put_plan(objects: ObjectStore, plan: Plan) -> str:
    """Store a plan; blocks. Gives its digest."""
    text = json.dumps(to_document(plan), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return objects.put_bytes(text.encode()).digest


def get_plan(objects: ObjectStore, digest: str) -> Plan:
    """The plan under a digest; blocks. Raises NotFound, DataCorrupt."""
    return from_document(json.loads(objects.get_bytes(digest)), Plan)
