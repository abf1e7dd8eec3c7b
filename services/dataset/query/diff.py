"""What changed between two versions, at the cost of what changed: revisions that begin or end between them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from penstock.errors import InvalidArgument, NotFound
from services.dataset.merge import changed_fields
from services.dataset.model import Dataset, Edit
from services.dataset.query.view import View
from services.dataset.repository import Repository, Revision
from services.dataset.values import decode

_CACHED = 16


@dataclass(frozen=True)
class Difference:
    """One record that differs: its texts before and after (None: it is not there), and the edit that made it so.

    `revision` is the version with which that came; 0 in a draft.
    """

    key: str
    before: str | None
    after: str | None
    edit: Edit | None
    revision: int = 0

    @property
    def fields(self) -> tuple[str, ...]:
        """The top-level fields that differ."""
        one = decode(self.before) if self.before is not None else None
        return changed_fields(one, decode(self.after) if self.after is not None else None)


@dataclass(frozen=True)
class Counts:
    """How many records a whole diff adds, changes and removes."""

    added: int
    changed: int
    removed: int


@dataclass
class _Pair:
    """The revisions (ids) of a record on both sides, and what they hold."""

    before: str | None = None
    after: str | None = None
    before_hash: bytes = b""
    after_hash: bytes = b""


class Differ:
    """Diffs. What differs between two versions never changes, so the keys are kept for the next pages."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[tuple[str, int, int], list[tuple[str, _Pair]]] = {}

    async def versions(
        self, dataset: Dataset, before: int, after: int, beyond: str | None, limit: int
    ) -> tuple[Counts, list[Difference]]:
        """The differences from version `before` to `after` (0: the empty dataset), by key after `beyond`, one more
        than `limit` if there are more; and the counts of all. Raises NotFound, InvalidArgument."""
        for number in (before, after):
            if number < 0:
                raise InvalidArgument("Versions count from 1; 0 is the empty dataset.", field="from_version")
            if number > dataset.head:
                raise NotFound(f"{dataset.name}/versions/{number} does not exist: the newest is {dataset.head}.")
        low, high = sorted((before, after))
        pairs = await self._pairs(dataset.name, low, high)
        counts = _counts(pairs)
        some = [pair for pair in pairs if beyond is None or pair[0] > beyond][: limit + 1]
        found = await self._load(dataset.name, some)
        if before > after:
            counts = Counts(counts.removed, counts.changed, counts.added)
            found = [Difference(d.key, d.after, d.before, d.edit, d.revision) for d in found]
        return counts, found

    async def draft(self, view: View, beyond: str | None, limit: int) -> tuple[Counts, list[Difference]]:
        """The differences that a draft makes to its base."""
        stored = await self._repository.at(view.dataset.name, view.version, list(view.overlay))
        found = []
        for key in sorted(view.overlay):
            change = view.overlay[key]
            before = stored[key].text if key in stored else None
            if before != change.text:
                found.append(Difference(key, before, change.text, change.edit))
        counts = Counts(
            sum(d.before is None for d in found),
            sum(d.before is not None and d.after is not None for d in found),
            sum(d.after is None for d in found),
        )
        return counts, [d for d in found if beyond is None or d.key > beyond][: limit + 1]

    async def _pairs(self, dataset: str, low: int, high: int) -> list[tuple[str, _Pair]]:
        key = (dataset, low, high)
        if key not in self._known:
            pairs: dict[str, _Pair] = {}
            await _collect(self._repository.changed(dataset, "to", low, high), low, high, pairs)
            await _collect(self._repository.changed(dataset, "from", low, high), low, high, pairs)
            differing = [
                (name, pair)
                for name, pair in sorted(pairs.items())
                if (pair.before or pair.after) and pair.before_hash != pair.after_hash
            ]
            while len(self._known) >= _CACHED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = differing
        return self._known[key]

    async def _load(self, dataset: str, pairs: Sequence[tuple[str, _Pair]]) -> list[Difference]:
        ids = [id for _, pair in pairs for id in (pair.before, pair.after) if id is not None]
        stored = await self._repository.by_ids(dataset, ids)
        found = []
        for key, pair in pairs:
            before = stored[pair.before] if pair.before else None
            after = stored[pair.after] if pair.after else None
            edit = after.edit if after else before.removal if before else None
            came = after.start if after else before.end if before else 0
            texts = (before.text if before else None, after.text if after else None)
            found.append(Difference(key, *texts, edit, came))
        return found


async def _collect(windows: AsyncIterator[list[Revision]], low: int, high: int, pairs: dict[str, _Pair]) -> None:
    async for revisions in windows:
        for revision in revisions:
            pair = pairs.setdefault(revision.key, _Pair())
            digest = hashlib.blake2b(revision.text.encode(), digest_size=16).digest()
            if revision.visible(low):
                pair.before, pair.before_hash = revision.id, digest
            if revision.visible(high):
                pair.after, pair.after_hash = revision.id, digest


def _counts(pairs: Sequence[tuple[str, _Pair]]) -> Counts:
    return Counts(
        sum(pair.before is None for _, pair in pairs),
        sum(pair.before is not None and pair.after is not None for _, pair in pairs),
        sum(pair.after is None for _, pair in pairs),
    )
