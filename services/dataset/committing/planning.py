"""Step (b): a frozen draft over the head. Reads only; what comes out is a plan, conflicts, or nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from penstock.errors import FailedPrecondition
from penstock.objects import ObjectStore
from penstock.store import now
from services.dataset.committing.plan import Chunk, Plan
from services.dataset.ingest.stage import PART_ROWS, put_rows, read_part
from services.dataset.layers import Batch, Change, Layers, Overlay
from services.dataset.merge import merge
from services.dataset.model import Conflict, Dataset, Draft, Edit
from services.dataset.repository import Repository, Revision
from services.dataset.values import BadValue, Record, add_rows, decode, encode, row_hash

MAX_CONFLICTS = 100  # listed in the draft, which is one document
MAX_CONFLICT_BYTES = 64 * 1024  # of the three records of a conflict; without the records beyond


@dataclass
class _Totals:
    """What the changes so far amount to."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    rows: int = 0

    def count(self, key: str, before: str | None, after: str | None) -> None:
        if before is not None:
            self.rows -= row_hash(key, before)
        if after is not None:
            self.rows += row_hash(key, after)
        self.added += before is None
        self.removed += after is None
        self.changed += before is not None and after is not None


@dataclass(frozen=True)
class Conflicted:
    """The draft and newer versions changed the same; the conflicts, as many as are listed, and how many more."""

    conflicts: tuple[Conflict, ...]
    more: int


@dataclass(frozen=True)
class NoChange:
    """The head has it all already."""


@dataclass
class _Work:
    """Changes that will be in the plan, in the columns of its payload; or conflicts."""

    keys: list[str] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    superseded: list[int] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    totals: _Totals = field(default_factory=_Totals)


class Planner:
    """Makes plans."""

    def __init__(self, repository: Repository, objects: ObjectStore, layers: Layers) -> None:
        self._repository = repository
        self._objects = objects
        self._layers = layers

    async def plan(self, dataset: Dataset, draft: Draft) -> Plan | Conflicted | NoChange:
        """The draft over the head as it is in `dataset`. Raises FailedPrecondition if it can never be committed."""
        if dataset.key_field and draft.key_field and dataset.key_field != draft.key_field:
            raise FailedPrecondition(
                f"The key field of {dataset.name} is '{dataset.key_field}', not '{draft.key_field}'."
            )
        batches = await self._layers.parts(draft) if draft.upsert else None
        if batches is not None:
            return await self._upsert(dataset, draft, batches[0])
        return await self._rebase(dataset, draft, await self._layers.overlay(draft))

    async def _upsert(self, dataset: Dataset, draft: Draft, batch: Batch) -> Plan | NoChange:
        """Staged parts, one after the other: only what differs from the head is a change; the parts are the payload."""
        totals = _Totals()
        chunks = []
        for digest in batch.parts:
            rows = await asyncio.to_thread(read_part, self._objects, digest)
            heads = await self._repository.current(dataset.name, rows.keys) if dataset.head else {}
            chunk = await asyncio.to_thread(_differing, digest, rows.keys, rows.texts, heads, totals)
            if chunk is not None:
                chunks.append(chunk)
        return self._finish(dataset, draft, (batch.edit,), chunks, totals)

    async def _rebase(self, dataset: Dataset, draft: Draft, overlay: Overlay) -> Plan | Conflicted | NoChange:
        heads = await self._repository.current(dataset.name, sorted(overlay)) if dataset.head else {}
        bases = await self._bases(dataset, overlay, heads)
        work = await asyncio.to_thread(_laid_over, overlay, heads, bases, draft.upsert)
        conflicts = work.conflicts
        if conflicts:
            return Conflicted(tuple(conflicts[:MAX_CONFLICTS]), max(0, len(conflicts) - MAX_CONFLICTS))
        edits = tuple(dict.fromkeys(work.edits))
        chunks = await asyncio.to_thread(self._put, work, edits)
        return self._finish(dataset, draft, edits, chunks, work.totals)

    async def _bases(self, dataset: Dataset, overlay: Overlay, heads: dict[str, Revision]) -> dict[str, str | None]:
        """The texts that changes were made over, of the records that newer versions may have changed since."""
        by_base: dict[int, list[str]] = {}
        for key, change in overlay.items():
            head = heads.get(key)
            if change.base < dataset.head and (head is None or head.start > change.base):
                by_base.setdefault(change.base, []).append(key)
        bases: dict[str, str | None] = {}
        for base, keys in by_base.items():
            found = await self._repository.at(dataset.name, base, keys)
            bases |= {key: found[key].text if key in found else None for key in keys}
        return bases

    def _put(self, work: _Work, edits: tuple[Edit, ...]) -> list[Chunk]:
        places = {edit: index for index, edit in enumerate(edits)}
        chunks = []
        for at in range(0, len(work.keys), PART_ROWS):
            some = slice(at, at + PART_ROWS)
            by = [places[edit] for edit in work.edits[some]]
            digest = put_rows(self._objects, work.keys[some], work.texts[some], by)
            chunks.append(Chunk(digest, None, tuple(work.superseded[some])))
        return chunks

    def _finish(
        self, dataset: Dataset, draft: Draft, edits: tuple[Edit, ...], chunks: Sequence[Chunk], totals: _Totals
    ) -> Plan | NoChange:
        labels = bool(dataset.head and draft.label_field) and draft.label_field != dataset.label_field
        if not chunks and not labels:  # another label is a version without a changed record
            return NoChange()
        return Plan(
            dataset.name, dataset.head + 1, draft.name, draft.commit, draft.message, draft.committer or draft.owner,
            draft.origin, now(), edits, tuple(chunks), dataset.records + totals.added - totals.removed,
            add_rows(dataset.rows, totals.rows), totals.added, totals.changed, totals.removed,
            draft.key_field, draft.label_field, draft.cause,
        )  # fmt: skip


def _differing(
    digest: str, keys: Sequence[str], texts: Sequence[str | None], heads: dict[str, Revision], totals: _Totals
) -> Chunk | None:
    """The rows of a part that the head has not, or has otherwise."""
    if not heads:
        for key, text in zip(keys, texts, strict=True):
            totals.count(key, None, text)
        return Chunk(digest)
    rows, superseded = [], []
    for row, (key, text) in enumerate(zip(keys, texts, strict=True)):
        head = heads.get(key)
        if head is None or head.text != text:
            totals.count(key, head.text if head else None, text)
            rows.append(row)
            superseded.append(head.start if head else 0)
    return Chunk(digest, tuple(rows), tuple(superseded)) if rows else None


def _laid_over(overlay: Overlay, heads: dict[str, Revision], bases: dict[str, str | None], upsert: bool) -> _Work:
    """Each change over the head; `bases` are the texts it was made over where that is not the head's."""
    work = _Work()
    for key in sorted(overlay):
        change, head = overlay[key], heads.get(key)
        theirs = head.text if head else None
        wanted, conflict = _merged(key, change, bases.get(key, theirs), head)
        if conflict is not None and not upsert:
            work.conflicts.append(conflict)
        elif wanted != theirs:
            work.totals.count(key, theirs, wanted)
            work.keys.append(key)
            work.texts.append(wanted)
            work.edits.append(change.edit)
            work.superseded.append(head.start if head else 0)
    return work


def _merged(key: str, change: Change, base: str | None, head: Revision | None) -> tuple[str | None, Conflict | None]:
    """The text of a record after the change, and the conflict if newer versions changed the same."""
    theirs = head.text if head else None
    if base == theirs:
        return change.text, None
    merged = merge(_record(base), _record(theirs), _record(change.text))
    try:
        text = None if merged.record is None else encode(merged.record)
    except BadValue as error:
        raise FailedPrecondition(f"The record '{key}', with what newer versions changed: {error}.") from error
    if not merged.conflict:
        return text, None
    conflict = Conflict(key, merged.fields, head.start if head else 0, base, theirs, change.text)
    return text, _bounded(conflict)


def _bounded(conflict: Conflict) -> Conflict:
    texts = (conflict.base, conflict.theirs, conflict.mine)
    if sum(len(text or "") for text in texts) <= MAX_CONFLICT_BYTES:
        return conflict
    return replace(conflict, base=None, theirs=None, mine=None)


def _record(text: str | None) -> Record | None:
    return None if text is None else decode(text)
