"""Carries imports from the last byte to their version: stage the whole file, then commit what was staged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from penstock.api.event.v1.events_pb2 import ImportFailed
from penstock.errors import AlreadyExists, NotFound
from penstock.events import NewEvent
from penstock.objects import ObjectStore
from penstock.rpc.watch import Signals, watch
from penstock.store import Stored, current_cause, now
from services.dataset.drafts import DraftLog, Look
from services.dataset.imports import Import, ImportState
from services.dataset.ingest.rows import BadFile
from services.dataset.ingest.stage import Staging
from services.dataset.layers import Batch, batch_id
from services.dataset.model import Dataset, Draft, DraftState, Edit, Origin, Segment
from services.dataset.repository import Repository


class _Cancelled(Exception):
    """The import was given up meanwhile."""


class Importer:
    """Does what there is to do for one import. `commit` is told of which dataset a draft was frozen."""

    def __init__(
        self,
        repository: Repository,
        objects: ObjectStore,
        drafts: DraftLog,
        signals: Signals,
        commit: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._objects = objects
        self._drafts = drafts
        self._signals = signals
        self._commit = commit

    async def find(self) -> list[str]:
        """The imports with something to do."""
        return [stored.id for stored in await self._repository.imports.find(eq={"active": 1})]

    async def visit(self, name: str) -> None:
        """Take an import to its end, from wherever it is."""
        stored = await self._repository.imports.get(name)
        try:
            if stored.value.state is ImportState.STAGING:
                stored = await self._stage(stored.value)
            if stored.value.state is ImportState.COMMITTING:
                await self.hand_over(stored.value)
                await self.await_version(stored.value)
        except _Cancelled:
            return
        except BadFile as error:
            await self._fail(stored.value, error.message)

    async def _stage(self, spec: Import) -> Stored[Import]:
        """From the beginning: the same file gives the same parts, so what a killed writer staged is found again."""
        staging = Staging(self._objects, spec)
        parts: tuple[str, ...] = ()
        records = 0
        while (part := await asyncio.to_thread(staging.next_part)) is not None:
            parts, records = (*parts, part.digest), records + part.records
            await self._change(replace(spec, parts=parts, records=records, missing=staging.missing))
        return await self._change(
            replace(spec, parts=parts, records=records, missing=staging.missing, state=ImportState.COMMITTING)
        )

    async def _change(self, staged: Import) -> Stored[Import]:
        def change(found: Import) -> Import:
            if found.state is not ImportState.STAGING:
                raise _Cancelled
            return staged

        stored = await self._repository.imports.change(staged.name, change)
        self._signals.notify(staged.name)
        return stored

    async def hand_over(self, spec: Import) -> None:
        """Put the staged parts into the named draft, or freeze a draft of their own."""
        batch = Batch(_edit(spec), (), spec.parts, spec.key_field, spec.label_field)
        if spec.draft:

            async def make(_: Draft, __: Look) -> Batch:
                return batch

            await self._drafts.append(f"{spec.dataset}/drafts/{spec.draft}", spec.author, make, spec.name)
            return
        dataset = (await self._repository.datasets.get(spec.dataset)).value
        draft = _own_draft(spec, dataset)
        await self._repository.edits.insert([batch.row(batch_id(draft.log, 0, 0))])
        with suppress(AlreadyExists):  # this import was here before
            await self._repository.drafts.create(draft.name, draft)
        self._commit(spec.dataset)

    async def await_version(self, spec: Import) -> None:
        """End the import as its draft ends."""
        if spec.draft:
            await self._end(spec, lambda found: found.ended_as(ImportState.SUCCEEDED, now()))
            return
        draft: Draft | None = None
        follow = watch(
            lambda: self._repository.drafts.get(spec.own_draft),
            version=lambda stored: stored.version,
            done=lambda stored: stored.value.settled,
            signals=self._signals,
            key=spec.own_draft,
        )
        try:
            async for stored in follow:
                draft = stored.value
        except NotFound:
            draft = None
        if draft is None or draft.state is not DraftState.COMMITTED:
            await self._fail(spec, draft.reason if draft else "Its draft was thrown away.")
            return
        version = draft.version
        await self._end(spec, lambda found: found.ended_as(ImportState.SUCCEEDED, now(), version=version))

    async def _fail(self, spec: Import, reason: str) -> None:
        """The event first, once; then the import's own document. Cut between them, both are done again."""
        event = NewEvent.of(ImportFailed(**{"dataset": spec.dataset, "import": spec.name, "reason": reason}))

        def tell(dataset: Dataset) -> tuple[Dataset, list[NewEvent]]:
            return replace(dataset, updated=now()), [event]

        token = current_cause.set(spec.cause)
        try:
            await self._repository.datasets.change(spec.dataset, tell, request_id=f"failed:{spec.id}")
        finally:
            current_cause.reset(token)
        await self._end(spec, lambda found: found.ended_as(ImportState.FAILED, now(), reason=reason))

    async def _end(self, spec: Import, end: Callable[[Import], Import]) -> None:
        await self._repository.imports.change(spec.name, lambda found: found if found.done else end(found))
        self._signals.notify(spec.name)


def _edit(spec: Import) -> Edit:
    return Edit(spec.author, spec.created, spec.source, Origin.IMPORT.value, spec.name)


def _own_draft(spec: Import, dataset: Dataset) -> Draft:
    """A draft of nothing but the staged parts, frozen from the beginning."""
    at = now()
    segments = (Segment(dataset.head, 1), Segment(dataset.head))
    return Draft(
        spec.dataset, spec.own_draft.rpartition("/")[2], spec.author, spec.id, at, at, segments, DraftState.FROZEN,
        spec.source or f"import {spec.id}", spec.records, Origin.IMPORT.value, spec.author, True, spec.key_field,
        spec.label_field, at, spec.cause,
    )  # fmt: skip
