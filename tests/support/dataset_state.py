"""All that a dataset is, read straight from what is stored, and what must always be true of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

from penstock.objects import durable
from penstock.store import database
from services.dataset.model import CURRENT
from services.dataset.repository import Repository, Revision, revision_of
from services.dataset.service import Datasets
from services.dataset.values import NO_ROWS, add_rows, row_hash, rows_digest


@dataclass(frozen=True)
class State:
    """A dataset as it is stored: comparable between a run with faults and one without."""

    head: int
    records: int
    committing: bool
    revisions: tuple[tuple[str, int, int, str], ...]
    versions: tuple[tuple[int, int, int, int, int, str], ...]
    drafts: tuple[tuple[str, str, int], ...]
    events: tuple[tuple[int, str, int], ...]


async def revisions_of(repository: Repository, name: str) -> list[Revision]:
    """All stored revisions of a dataset."""
    return [revision_of(row) for row in await repository.revisions(name).find()]


async def state_of(datasets: Datasets, name: str) -> State:
    """The state of a dataset. Its events are those in the outbox: no relay may be running."""
    repository = datasets.repository
    dataset = (await repository.datasets.get(name)).value
    versions = [stored.value for stored in await repository.list_versions(dataset, dataset.head + 1, 1000)]
    drafts = await repository.list_drafts(name, 1000, None)
    return State(
        head=dataset.head,
        records=dataset.records,
        committing=dataset.committing is not None,
        revisions=tuple(sorted((r.key, r.start, r.end, r.text) for r in await revisions_of(repository, name))),
        versions=tuple((v.number, v.records, v.added, v.changed, v.removed, v.rows_digest) for v in versions),
        drafts=tuple(sorted((d.value.id, d.value.state.value, d.value.version) for d in drafts)),
        events=tuple(await events_of(repository, name)),
    )


async def events_of(repository: Repository, name: str) -> list[tuple[int, str, int]]:
    """(sequence, type, version number) of each event of a dataset, from its outbox."""
    found = []
    for pending in await repository.datasets.pending(1000):
        for entry in map(json.loads, pending.entries):
            if entry["subject"] == name:
                found.append((entry["sequence"], entry["type"], int(entry["data"].get("number", 0))))
    return found


async def check(datasets: Datasets, name: str, *, relayed: bool = False) -> None:
    """Whatever happened: every version is whole, each record once in it, each version published once, in order.

    `relayed`: the events have left the outbox and are not looked at.
    """
    state = await state_of(datasets, name)
    revisions = await revisions_of(datasets.repository, name)
    for number, records, _, _, _, digest in state.versions:
        visible = [revision for revision in revisions if revision.visible(number)]
        doubled = [key for key, times in Counter(revision.key for revision in visible).items() if times > 1]
        assert not doubled, f"version {number} has {doubled} twice"
        assert len(visible) == records, f"version {number} says {records} records and has {len(visible)}"
        total = NO_ROWS
        for revision in visible:
            total = add_rows(total, row_hash(revision.key, revision.text))
        assert rows_digest(total) == digest, f"version {number} holds other rows than it was committed with"
    if not state.committing:
        assert all(r.start <= state.head and (r.end <= state.head or r.end == CURRENT) for r in revisions)
    committed = [number for _, type, number in state.events if type == "dataset.version.committed"]
    assert relayed or committed == list(range(1, state.head + 1)), f"published {committed}, the head is {state.head}"
    assert [n for n, *_ in state.versions] == list(range(state.head, 0, -1))


class Killed(BaseException):
    """The process ends here; nothing of the product can catch it."""


class Fault:
    """A kill at the k-th write, counted over both seams: the store's and the object store's.

    It is for the code in the block and the tasks and threads that this starts, so that many runs go on at once; from
    that write on, all of them are dead. `carried_out`: the write at which they die still reaches the disk.
    """

    def __init__(self, at: int = 0, *, carried_out: bool = False) -> None:
        self.count = 0
        self.dead = False
        self.carried_out = carried_out
        self._at = at

    def counted(self) -> bool:
        """Count a write; whether the process dies at it."""
        if self.dead:
            raise Killed
        self.count += 1
        self.dead = self.count == self._at
        return self.dead

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The block in which the process may die."""
        token = _fault.set(self)
        try:
            yield
        except Killed:
            assert self.dead
        finally:
            _fault.reset(token)


_fault: ContextVar[Fault | None] = ContextVar("fault", default=None)


@pytest.fixture
def seams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets faults happen at all writes."""
    store, objects = database.write, durable.write

    async def write(operation: Callable[[], Awaitable[Any]]) -> Any:
        fault = _fault.get()
        if fault is None or not fault.counted():
            return await store(operation)
        if fault.carried_out:
            await store(operation)
        raise Killed

    def write_object(operation: Callable[[], Any]) -> Any:
        fault = _fault.get()
        if fault is None or not fault.counted():
            return objects(operation)
        if fault.carried_out:
            objects(operation)
        raise Killed

    monkeypatch.setattr(database, "write", write)
    monkeypatch.setattr(durable, "write", write_object)


class Pauses:
    """Stops one task at its n-th store write until `resume`, as a process is stopped by SIGSTOP."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._at = 0
        self.reached = asyncio.Event()
        self.resume = asyncio.Event()
        real = database.write

        async def write(operation: Callable[[], Awaitable[Any]]) -> Any:
            found = _pausing.get()
            if found is self:
                self.count += 1
                if self.count == self._at:
                    self.reached.set()
                    await self.resume.wait()
            return await real(operation)

        monkeypatch.setattr(database, "write", write)

    def start(self, work: Callable[[], Awaitable[None]], at: int) -> asyncio.Task[None]:
        """Run `work` in a task that stops before its write number `at`; 0 only counts."""
        self.count, self._at = 0, at
        self.reached.clear()
        self.resume.clear()

        async def run() -> None:
            _pausing.set(self)
            await work()

        return asyncio.create_task(run())


_pausing: ContextVar[Pauses | None] = ContextVar("pausing", default=None)
