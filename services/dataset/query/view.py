"""What a reader looks at: a version, with a draft's overlay on top if asked; fixed, so that pages fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.errors import InvalidArgument
from services.dataset.layers import Change, Layers, Overlay
from services.dataset.model import Dataset, Draft, Edit, Segment
from services.dataset.repository import Repository, Revision


@dataclass(frozen=True)
class Found:
    """A record as a reader gets it. `revision` 0: it is in a draft; `end` 0: it is current."""

    key: str
    text: str
    revision: int
    edit: Edit
    end: int = 0


@dataclass(frozen=True)
class View:
    """Version `version` of a dataset under `overlay`. `snapshot` is what a page token needs to find it again."""

    dataset: Dataset
    version: int
    overlay: Overlay = field(default_factory=dict)
    snapshot: tuple[Any, ...] = ()


def found(revision: Revision, head: int) -> Found:
    """A stored revision as a reader gets it: one that the version after `head` will end is still current."""
    end = revision.end if revision.end <= head else 0
    return Found(revision.key, revision.text, revision.start, revision.edit, end)


def of_change(key: str, change: Change) -> Found:
    """A draft's record as a reader gets it."""
    assert change.text is not None
    return Found(key, change.text, 0, change.edit)


class Views:
    """Finds what a request is about."""

    def __init__(self, repository: Repository, layers: Layers) -> None:
        self.repository = repository
        self.layers = layers

    async def open(
        self,
        dataset: str,
        version: int,
        draft: str,
        snapshot: Sequence[Any] | None = None,
        keys: Iterable[str] | None = None,
    ) -> View:
        """A version (0: the head), or a draft over its base; as in an earlier page's `snapshot` if given.

        With `keys`, the view is of these records alone.
        Raises NotFound, InvalidArgument.
        """
        if version < 0 or (version and draft):
            raise InvalidArgument("Ask for a version (1, 2, …) or for a draft, not for both.", field="version")
        stored = (await self.repository.datasets.get(dataset)).value
        if draft:
            return await self._of_draft(stored, draft, snapshot, keys)
        number = version or (int(snapshot[0]) if snapshot else stored.head)
        if version:
            await self.repository.version(stored, version)
        return View(stored, number, {}, (number,))

    async def _of_draft(
        self, dataset: Dataset, id: str, snapshot: Sequence[Any] | None, keys: Iterable[str] | None
    ) -> View:
        draft = (await self.repository.drafts.get(f"{dataset.name}/drafts/{id}")).value
        if snapshot:
            draft = _as_of(draft, snapshot)
        segments = [[segment.base, segment.count] for segment in draft.segments]
        return View(dataset, draft.base, await self.layers.view(draft, keys), (draft.layer, segments))


def _as_of(draft: Draft, snapshot: Sequence[Any]) -> Draft:
    layer, segments = snapshot
    return replace(draft, layer=layer, segments=tuple(Segment(base, count) for base, count in segments))
