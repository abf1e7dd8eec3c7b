"""Begin an import, take its bytes, give it up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from penstock import names
from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.objects import ObjectStore
from penstock.rpc.request_ids import check_repeat
from penstock.rpc.watch import Signals
from penstock.store import Stored, now
from services.dataset.imports import Import, ImportState
from services.dataset.repository import Repository

MAX_CHUNK = 4 * 1024 * 1024
MAX_SIZE = 1 << 40


@dataclass(frozen=True)
class Imports:
    """The use cases; `wake` tells the importer which import has something to do."""

    repository: Repository
    objects: ObjectStore
    signals: Signals
    wake: Callable[[str], None]

    async def create(self, spec: Import, request: str) -> Stored[Import]:
        """Begin an import; the same request again gives the one there is, with the bytes it has received.

        Raises AlreadyExists if that was of another file, or into something else.
        """
        dataset = (await self.repository.datasets.get(spec.dataset)).value
        if spec.draft:
            names.check_id(spec.draft, "import.draft")
        if dataset.key_field and spec.key_field != dataset.key_field:
            raise InvalidArgument(
                f"The key field of {dataset.id} is '{dataset.key_field}': import with that.", field="import.key_field"
            )
        if not 1 <= spec.size <= MAX_SIZE:
            raise InvalidArgument(f"The file has {spec.size} bytes: there is nothing to import.", field="import.size")
        stored = await self.repository.imports.create(spec.name, spec, request_id=request or None)
        check_repeat(same=stored.value.asked == spec.asked)
        return stored

    async def write(self, name: str, offset: int, data: bytes) -> Stored[Import]:
        """Keep the next bytes, durable on return. Bytes that are there already are passed over.

        Raises InvalidArgument (too many, or not at the place where the last write ended), FailedPrecondition.
        """
        if not 1 <= len(data) <= MAX_CHUNK:
            raise InvalidArgument(f"Write 1 to {MAX_CHUNK} bytes at a time, not {len(data)}.", field="data")
        stored = await self.repository.imports.get(name)
        if offset + len(data) <= stored.value.received and stored.value.state is not ImportState.CANCELLED:
            return stored
        _check_place(stored.value, offset, len(data))
        digest = (await asyncio.to_thread(self.objects.put_bytes, data)).digest

        def received(found: Import) -> Import:
            if found.received == offset + len(data) and found.chunks and found.chunks[-1] == digest:
                return found  # the same write, twice at once
            _check_place(found, offset, len(data))
            return found.received_chunk(digest, len(data))

        stored = await self.repository.imports.change(name, received)
        self.signals.notify(name)
        if stored.value.active:
            self.wake(name)
        return stored

    async def cancel(self, name: str) -> Stored[Import]:
        """Give an import up. Raises FailedPrecondition once it is being committed."""

        def cancelled(found: Import) -> Import:
            if found.state is ImportState.CANCELLED:
                return found
            found.expect(ImportState.UPLOADING, ImportState.STAGING)
            return found.ended_as(ImportState.CANCELLED, now())

        stored = await self.repository.imports.change(name, cancelled)
        self.signals.notify(name)
        return stored


def _check_place(found: Import, offset: int, size: int) -> None:
    found.expect(ImportState.UPLOADING)
    if offset != found.received:
        raise InvalidArgument(f"The next bytes go to offset {found.received}, not {offset}.", field="offset")
    if offset + size > found.size:
        raise FailedPrecondition(f"The file was said to have {found.size} bytes, and this would be {offset + size}.")
