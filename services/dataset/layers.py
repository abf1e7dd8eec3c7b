"""What a draft says: its log of immutable batches, and the overlay that they amount to (the newest wins)."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from penstock.errors import DataCorrupt
from penstock.objects import ObjectStore
from services.dataset.ingest.stage import read_part
from services.dataset.merge import merge
from services.dataset.model import Draft, Edit, Segment
from services.dataset.repository import Repository, Revision, edit_document, edit_of
from services.dataset.values import Record, decode, encode

MAX_CACHED = 32


@dataclass(frozen=True)
class Change:
    """What a draft makes of a record: its text, or None where it is removed; made over version `base`."""

    text: str | None
    edit: Edit
    base: int


Overlay: TypeAlias = Mapping[str, Change]


@dataclass(frozen=True)
class Batch:
    """Edits that were made together: `changes` in order, or staged `parts` (digests) of an import.

    An import names its key field and its label field. Whoever makes the batch count gives them to the draft, and
    remembers the `request`. `nonce` tells a batch from an equal one of another writer.
    """

    edit: Edit
    changes: tuple[tuple[str, str | None], ...] = ()
    parts: tuple[str, ...] = ()
    key_field: str = ""
    label_field: str = ""
    request: str = ""
    nonce: str = ""

    def row(self, id: str) -> dict[str, Any]:
        """The document."""
        body = {
            "edit": edit_document(self.edit),
            "changes": self.changes,
            "parts": self.parts,
            "fields": (self.key_field, self.label_field),
            "request": self.request,
            "nonce": self.nonce,
        }
        return {"_id": id, "body": json.dumps(body, ensure_ascii=False, separators=(",", ":"))}


def batch_id(log: str, segment: int, number: int) -> str:
    """Where a batch of a log is kept."""
    return f"{log}/{segment:04d}/{number:08d}"


def batch_of(row: dict[str, Any]) -> Batch:
    """A stored batch."""
    body = json.loads(row["body"])
    changes = tuple((key, text) for key, text in body["changes"])
    key_field, label_field = body["fields"]
    return Batch(
        edit_of(body["edit"]), changes, tuple(body["parts"]), key_field, label_field, body["request"], body["nonce"]
    )


class Layered(Mapping[str, Change]):
    """A few changes over many: so that adding to an overlay copies the few, and not all that there is."""

    def __init__(self, below: Overlay, above: Overlay) -> None:
        self.below = below
        self.above = above
        self._length = len(below) + sum(key not in below for key in above)

    def __getitem__(self, key: str) -> Change:
        found = self.above.get(key)
        return self.below[key] if found is None else found

    def __iter__(self) -> Iterator[str]:
        yield from self.above
        for key in self.below:
            if key not in self.above:
                yield key

    def __len__(self) -> int:
        return self._length


def apply(overlay: Overlay, batches: Iterable[tuple[Batch, int]], parts: Mapping[str, Sequence[Any]]) -> Overlay:
    """The overlay after some more batches, each with its base; `parts` are the rows of staged parts by digest.

    What was there stays as it is for those who read it. n edits one by one copy about n * sqrt(n) changes, not n * n.
    """
    below, above = (overlay.below, dict(overlay.above)) if isinstance(overlay, Layered) else (overlay, {})
    for batch, base in batches:
        for digest in batch.parts:
            for key, text in parts[digest]:
                above[key] = Change(text, batch.edit, base)
        for key, text in batch.changes:
            above[key] = Change(text, batch.edit, base)
    return {**below, **above} if len(above) ** 2 >= len(below) else Layered(below, above)


class Layers:
    """Overlays of drafts. Logs only grow, so the overlay of a log is kept and continued."""

    def __init__(self, repository: Repository, objects: ObjectStore) -> None:
        self._repository = repository
        self._objects = objects
        self._known: OrderedDict[str, tuple[tuple[Segment, ...], Overlay]] = OrderedDict()

    async def overlay(self, draft: Draft) -> Overlay:
        """What the draft says, as of the segments in `draft`."""
        known, overlay = self._known.get(draft.log, ((), {}))
        if not _continues(known, draft.segments):
            known, overlay = (), {}
        missing = _missing(known, draft.segments)
        if missing:
            overlay = await self._extended(draft.log, overlay, missing)
        self._known[draft.log] = (draft.segments, overlay)
        self._known.move_to_end(draft.log)
        while len(self._known) > MAX_CACHED:
            self._known.popitem(last=False)
        return overlay

    async def view(self, draft: Draft, keys: Iterable[str] | None = None) -> Overlay:
        """The overlay over `draft.base`: what was changed over an older version is brought up to it, mine winning.

        With `keys`, what it says of these, for which no other records are read.
        """
        overlay = await self.overlay(draft)
        if keys is not None:
            overlay = {key: overlay[key] for key in keys if key in overlay}
        if len({segment.base for segment in draft.segments}) == 1:
            return overlay
        old = {key: change for key, change in overlay.items() if change.base != draft.base}
        theirs = await self._repository.at(draft.dataset, draft.base, list(old))
        brought = dict(overlay)
        for base in {change.base for change in old.values()}:
            keys = [key for key, change in old.items() if change.base == base]
            before = await self._repository.at(draft.dataset, base, keys)
            for key in keys:
                brought[key] = _brought(old[key], before.get(key), theirs.get(key), draft.base)
        return brought

    async def parts(self, draft: Draft) -> tuple[Batch, ...] | None:
        """The batches of a draft that consists of staged parts alone, which need not be laid over each other."""
        batches = [batch for batch, _ in await self._batches(draft.log, _missing((), draft.segments))]
        return tuple(batches) if len(batches) == 1 and batches[0].parts else None

    async def _extended(self, log: str, overlay: Overlay, missing: Sequence[tuple[int, int, int]]) -> Overlay:
        batches = await self._batches(log, missing)
        digests = {digest for batch, _ in batches for digest in batch.parts}
        parts = {}
        for digest in digests:
            rows = await asyncio.to_thread(read_part, self._objects, digest)
            parts[digest] = list(zip(rows.keys, rows.texts, strict=True))
        return await asyncio.to_thread(apply, overlay, batches, parts)

    async def _batches(self, log: str, missing: Sequence[tuple[int, int, int]]) -> list[tuple[Batch, int]]:
        ids = [batch_id(log, segment, number) for segment, number, _ in missing]
        rows = await self._repository.edits.get_many(ids)
        if len(rows) != len(ids):
            raise DataCorrupt(f"The log of edits {log} has lost batches: restore the database from a backup.")
        return [(batch_of(rows[id]), base) for id, (_, _, base) in zip(ids, missing, strict=True)]


def _brought(change: Change, before: Revision | None, theirs: Revision | None, base: int) -> Change:
    mine = None if change.text is None else decode(change.text)
    merged = merge(_record(before), _record(theirs), mine)
    return Change(None if merged.record is None else encode(merged.record), change.edit, base)


def _record(revision: Revision | None) -> Record | None:
    return None if revision is None else decode(revision.text)


def _continues(known: tuple[Segment, ...], segments: tuple[Segment, ...]) -> bool:
    """Whether a log with these segments only adds batches to what is known."""
    if len(known) > len(segments):
        return False
    for index, segment in enumerate(known):
        last = index == len(known) - 1
        if segment.count > segments[index].count or (segment.count < segments[index].count and not last):
            return False
    return True


def _missing(known: tuple[Segment, ...], segments: tuple[Segment, ...]) -> list[tuple[int, int, int]]:
    """(segment, number, base) of the batches that are not known yet."""
    missing = []
    for index, segment in enumerate(segments):
        first = known[index].count if index < len(known) else 0
        missing += [(index, number, segment.base) for number in range(first, segment.count)]
    return missing
