"""Writes the partitions of committed versions in the background, version after version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from penstock import names
from penstock.objects import ObjectStore
from penstock.rpc.watch import Signals
from penstock.runtime.tasks import set_within
from penstock.store import Stored
from services.dataset.committing.plan import get_plan
from services.dataset.model import Dataset, Version
from services.dataset.partitions.build import Builder
from services.dataset.partitions.manifest import Manifest, get_manifest, put_manifest
from services.dataset.repository import Repository


class PartitionWriter:
    """Gives every version its manifest. Of two that write the same, the first wins and the other adopts."""

    def __init__(self, repository: Repository, objects: ObjectStore, signals: Signals) -> None:
        self._repository = repository
        self._objects = objects
        self._signals = signals

    async def find(self) -> list[str]:
        """The datasets with versions that have no manifest."""
        pending = await self._repository.versions.find(eq={"unwritten": 1}, limit=None)
        found = list(dict.fromkeys(stored.value.dataset for stored in pending))
        datasets = await self._repository.datasets.get_many(found)
        reached = {s.value.dataset for s in pending if s.value.number <= _head(datasets.get(s.value.dataset))}
        return [name for name in found if name in reached]

    async def visit(self, name: str) -> None:
        """Write all that is missing of one dataset, oldest version first."""
        dataset = (await self._repository.datasets.get(name)).value
        for stored in await self._repository.unwritten(dataset):
            await self._write(dataset, stored)

    async def _write(self, dataset: Dataset, stored: Stored[Version]) -> None:
        before = None
        if stored.value.number > 1:
            previous = await self._repository.version(dataset, stored.value.number - 1)
            assert previous.value.manifest is not None
            before = previous.value.manifest
        digest = await asyncio.to_thread(self._build, dataset, stored.value, before)
        await self.set_manifest(stored.id, digest)
        self._signals.notify(stored.id)

    def _build(self, dataset: Dataset, version: Version, before: str | None) -> str:
        plan = get_plan(self._objects, version.plan)
        known = get_manifest(self._objects, before) if before else None
        manifest = Builder(self._objects, plan, known).build()
        manifest = replace(
            manifest,
            key_field=manifest.key_field or (known.key_field if known else "") or dataset.key_field,
            label_field=manifest.label_field or (known.label_field if known else "") or dataset.label_field,
        )
        return put_manifest(self._objects, manifest)

    async def set_manifest(self, name: str, digest: str) -> str:
        """Set a version's manifest unless it has one; gives the one that it has then."""
        stored = await self._repository.versions.change(
            name, lambda version: version if version.manifest else replace(version, manifest=digest)
        )
        assert stored.value.manifest is not None
        return stored.value.manifest


class Manifests:
    """Manifests for readers."""

    def __init__(
        self, repository: Repository, objects: ObjectStore, signals: Signals, wake: Callable[[str], None]
    ) -> None:
        self._repository = repository
        self._objects = objects
        self._signals = signals
        self._wake = wake
        self._known: dict[str, Manifest] = {}

    async def load(self, digest: str) -> Manifest:
        """The manifest under a digest; the last 64 are kept."""
        if digest not in self._known:
            manifest = await asyncio.to_thread(get_manifest, self._objects, digest)
            while len(self._known) >= 64:
                self._known.pop(next(iter(self._known)))
            self._known[digest] = manifest
        return self._known[digest]

    async def of_version(self, name: str, *, wait: bool) -> tuple[str, Manifest] | None:
        """A version's manifest and its digest; None if it has none yet. With `wait`, waits for it."""
        resource = names.parse(name, kind="dataset_version")
        dataset = await self._repository.datasets.get(resource.parent)
        with self._signals.listening(name) as changed:
            while True:
                changed.clear()
                version = (await self._repository.version(dataset.value, resource.number)).value
                if version.manifest is not None:
                    return version.manifest, await self.load(version.manifest)
                if not wait:
                    return None
                self._wake(dataset.id)
                await set_within(changed, 0.2)


def _head(stored: Stored[Dataset] | None) -> int:
    return stored.value.head if stored else 0
