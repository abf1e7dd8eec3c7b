"""Adding to a draft: one batch into its log, then the draft's document counts it.

The batch is written first. If its writer dies before it counts, whoever adds next counts it (its command was never
answered, so it may have happened); if the draft was frozen in between, the batch is in no segment and never counts.
"""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from penstock import names
from penstock.errors import AlreadyExists, Conflict, FailedPrecondition, NotFound
from penstock.rpc.watch import Signals
from penstock.store import Stored, now
from services.dataset.layers import Batch, Layers, Overlay, batch_id, batch_of
from services.dataset.model import Draft, DraftState, Segment
from services.dataset.repository import Repository

_ATTEMPTS = 50
Look: TypeAlias = Callable[[Iterable[str]], Awaitable[Overlay]]  # what the draft says of these keys
MakeBatch: TypeAlias = Callable[[Draft, Look], Awaitable[Batch]]


class DraftLog:
    """Opens drafts and adds batches to them."""

    def __init__(self, repository: Repository, layers: Layers, signals: Signals) -> None:
        self._repository = repository
        self._layers = layers
        self._signals = signals
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def append(self, name: str, owner: str, make: MakeBatch, request: str = "") -> Stored[Draft]:
        """Add the batch that `make` gives for the draft as it is. The same `request` again adds nothing.

        Raises what `make` raises, FailedPrecondition (frozen), Conflict.
        """
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            for _ in range(_ATTEMPTS):
                if request and (done := await self._seen(name, request)) is not None:
                    return done
                with suppress(Conflict):  # another process was faster: look again
                    appended = await self._append(await self._open(name, owner), make, request)
                    if appended is not None:
                        self._signals.notify(name)
                        return appended
        raise Conflict(f"The draft {name} is being edited by too many others; try again in a moment.")

    async def _append(self, stored: Stored[Draft], make: MakeBatch, request: str) -> Stored[Draft] | None:
        """One attempt; None if it has to be made again."""
        draft = stored.value
        made = await make(draft, partial(self._layers.view, draft))
        batch = replace(made, request=request, nonce=secrets.token_hex(8))
        place = batch_id(draft.log, len(draft.segments) - 1, draft.segments[-1].count)
        if not await self._repository.edits.insert([batch.row(place)]):
            found = await self._repository.edits.get(place)
            if found is None or batch_of(found).nonce != batch.nonce:
                if found is not None:
                    await self._count(stored, batch_of(found))
                return None
        try:
            return await self._count(stored, batch)
        except Conflict:
            latest = await self._repository.drafts.get(stored.id)
            return latest if _counts(latest.value, draft) else None

    async def _count(self, stored: Stored[Draft], batch: Batch) -> Stored[Draft]:
        """Make the stored batch count, whoever wrote it."""
        appended = stored.value.appended(0, now())
        value = replace(
            appended,
            changes=len(await self._layers.overlay(appended)),
            key_field=appended.key_field or batch.key_field,
            label_field=batch.label_field or appended.label_field,
        )
        return await self._repository.drafts.save(stored, value, request_id=batch.request or None)

    async def _open(self, name: str, owner: str) -> Stored[Draft]:
        """The draft, ready for another batch: made over the head if it is not there, or is committed already."""
        try:
            stored = await self._repository.drafts.get(name)
        except NotFound:
            stored = None
        if stored is None:
            try:
                return await self._repository.drafts.create(name, await self._new(name, owner))
            except AlreadyExists:
                return await self._repository.drafts.get(name)
        if stored.value.state is DraftState.FROZEN:
            raise FailedPrecondition(f"The draft {stored.value.id} is being committed: edit it when that has ended.")
        if stored.value.state is DraftState.COMMITTED:
            return await self._repository.drafts.save(stored, await self._new(name, owner))
        return stored

    async def _new(self, name: str, owner: str) -> Draft:
        resource = names.parse(name, kind="draft")
        dataset = await self._repository.datasets.get(resource.parent)
        base = Segment(dataset.value.head)
        return Draft(resource.parent, resource.id, owner, secrets.token_hex(6), now(), now(), (base,))

    async def _seen(self, name: str, request: str) -> Stored[Draft] | None:
        """The draft, if this request has counted."""
        called = False

        def remember(draft: Draft) -> Draft:
            nonlocal called
            called = True
            return draft

        try:
            stored = await self._repository.drafts.change(name, remember, request_id=request)
        except NotFound:
            return None
        return None if called else stored


def _counts(latest: Draft, before: Draft) -> bool:
    """Whether the batch that was to come after `before` counts: somebody else has counted it."""
    place = len(before.segments) - 1
    return latest.log == before.log and latest.segments[place].count > before.segments[place].count
