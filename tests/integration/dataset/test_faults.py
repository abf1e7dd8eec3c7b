"""Promise 1 and the commit protocol: killed at any write, raced or paused, a dataset ends as if nothing had been."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from penstock.errors import Conflict
from penstock.store import RowUpdate
from services.dataset.committing.committer import Committer
from services.dataset.imports import Format, Import, ImportState
from services.dataset.ingest import stage
from services.dataset.model import Dataset, DraftState
from services.dataset.repository import Repository
from services.dataset.service import Datasets
from tests.support.dataset_platform import DatasetPlatform, jsonl
from tests.support.dataset_state import Fault, Pauses, State, check, revisions_of, seams, state_of
from tests.support.dataset_steps import ROWS, TIME, edit, freeze, new_dataset, settle, with_a_version

Work: TypeAlias = Callable[[Datasets, str], Awaitable[None]]
__all__ = ["seams"]


@pytest.fixture
async def platform(tmp_path: Path, mongodb_uri: str) -> AsyncIterator[DatasetPlatform]:
    running = DatasetPlatform.open(tmp_path, mongodb_uri)
    try:
        await running.parts().repository.prepare()
        yield running
    finally:
        await running.close()


async def edit_and_commit(datasets: Datasets, name: str) -> None:
    """As a client that repeats its requests until they are answered, and the service's loops."""
    await edit(datasets, name, "mine", "e1", k1=100, new=1)
    await edit(datasets, name, "mine", "e2", k2=None, k1=101)
    await freeze(datasets, name, "mine", "c1")
    await settle(datasets, name)


async def import_file(datasets: Datasets, name: str) -> None:
    content = jsonl([*ROWS[2:], {"id": "new", "v": 1}, {"id": "k0", "v": 50}])
    spec = Import(name, "i1", "ana", "file", Format.JSONL, "id", len(content), TIME)
    stored = await datasets.servicer.imports.create(spec, "i1")
    while stored.value.state is ImportState.UPLOADING:
        at = stored.value.received
        stored = await datasets.servicer.imports.write(spec.name, at, content[at : at + 80])
    visiting = asyncio.create_task(datasets.importer.visit(spec.name))
    try:
        while not (await asyncio.wait({visiting}, timeout=0.05))[0]:
            if await datasets.repository.queue(name):
                await settle(datasets, name)
        await visiting
    finally:
        visiting.cancel()
        await asyncio.gather(visiting, return_exceptions=True)
    await settle(datasets, name)


async def finished(datasets: Datasets, name: str) -> State:
    await check(datasets, name)
    versions = await datasets.repository.versions.get_many([f"{name}/versions/{n}" for n in (1, 2)])
    assert all(stored.value.manifest for stored in versions.values()) and len(versions) == 2
    return await state_of(datasets, name)


@pytest.mark.parametrize("work", [edit_and_commit, import_file])
async def test_killed_at_any_write_it_ends_as_if_it_had_not_been(
    platform: DatasetPlatform, seams: None, monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    monkeypatch.setattr(stage, "PART_ROWS", 3)
    name = await with_a_version(platform.parts("clean"), "clean")
    before = await state_of(platform.parts("clean"), name)
    counting = Fault()
    with counting.active():
        await work(platform.parts("clean"), name)
    expected = await finished(platform.parts("clean"), name)
    assert expected.head == 2 and not expected.committing and counting.count > 12
    faults = [Fault(k, carried_out=after) for k in range(1, counting.count + 1) for after in (False, True)]
    slots = asyncio.Semaphore(6)

    async def one(index: int, fault: Fault) -> None:
        async with slots:
            await killed(platform, f"d{index}", work, fault, before, expected)

    async with asyncio.TaskGroup() as group:
        for index, fault in enumerate(faults):
            group.create_task(one(index, fault))
    assert all(fault.dead for fault in faults), "k did not reach the number of writes of the faultless run"


async def killed(
    platform: DatasetPlatform, area: str, work: Work, fault: Fault, before: State, expected: State
) -> None:
    """Kill one run, look at what is there, and let another process and the repeating client finish it."""
    name = await with_a_version(platform.parts(area), area)
    with fault.active():
        await work(platform.parts(area), name)
    there = await state_of(platform.parts(area), name)
    if there.head == 1 and not there.committing:  # before (c) nothing has happened
        assert there.revisions == before.revisions and there.versions == before.versions
    await check(platform.parts(area), name)  # what is visible is whole, right after the kill too
    await work(platform.parts(area), name)
    assert await finished(platform.parts(area), name) == expected


async def test_a_writer_paused_at_any_write_does_no_harm_when_it_wakes(
    platform: DatasetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses(monkeypatch)
    writes = await paused_commit(platform, pauses, 0)
    assert writes >= 6
    for at in range(1, writes + 1):
        await paused_commit(platform, pauses, at)


async def test_a_draft_is_not_judged_by_what_a_version_half_way_has_written(
    platform: DatasetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has read the head, and looks at the records while this one writes them: nothing would differ."""
    pauses = Pauses(monkeypatch)
    name = await with_a_version(platform.parts(), "half-way")
    await edit(platform.parts(), name, "mine", "e", k1=100, k2=None)
    await freeze(platform.parts(), name, "mine", "c")
    other, paused = platform.parts(), platform.parts()
    dataset, (draft,) = await other.repository.datasets.get(name), await other.repository.queue(name)
    task = pauses.start(
        lambda: paused.committer.visit(name), 5
    )  # decided, inserted, closed one and removed one; not yet published
    await pauses.reached.wait()
    await other.committer._commit(dataset, draft)
    assert (await other.repository.drafts.get(draft.id)).value.state is DraftState.FROZEN
    pauses.resume.set()
    await task
    assert (await other.repository.drafts.get(draft.id)).value.version == 2
    await check(other, name)


async def paused_commit(platform: DatasetPlatform, pauses: Pauses, at: int) -> int:
    """A commit stopped before its write `at`; others finish it and go on; then it wakes. Gives its number of writes."""
    name = await with_a_version(platform.parts(), f"p{at}")
    await edit(platform.parts(), name, "mine", "e", k1=100, k2=None, new=1)
    await freeze(platform.parts(), name, "mine", "c")
    paused = platform.parts()
    task = pauses.start(lambda: paused.committer.visit(name), at)
    if not at:
        await task
        return pauses.count
    await pauses.reached.wait()
    others = platform.parts()
    await settle(others, name)
    await edit(others, name, "more", "e", k1=200, new=None, k2=5, k3=7)
    await freeze(others, name, "more", "c")
    await settle(others, name)
    before = await state_of(others, name)
    assert before.head == 3
    pauses.resume.set()
    await task
    await check(others, name)
    assert await state_of(others, name) == before
    return pauses.count


async def test_writers_that_race_commit_each_draft_once(platform: DatasetPlatform) -> None:
    name = await with_a_version(platform.parts(), "race")
    for n in range(6):
        await edit(platform.parts(), name, f"d{n}", "e", **{f"k{n}": 100 + n, f"n{n}": n})
        await freeze(platform.parts(), name, f"d{n}", "c")
    racers = [platform.parts() for _ in range(4)]
    await asyncio.gather(*(racer.committer.visit(name) for racer in racers))
    await settle(racers[0], name)
    await check(racers[0], name)
    state = await state_of(racers[0], name)
    assert state.head == 7 and [version for *_, version in state.drafts] == [2, 3, 4, 5, 6, 7, 1]


async def test_two_imports_of_one_request_are_one(platform: DatasetPlatform) -> None:
    name = await with_a_version(platform.parts(), "twice")
    await asyncio.gather(import_file(platform.parts(), name), import_file(platform.parts(), name))
    await check(platform.parts(), name)
    assert (await state_of(platform.parts(), name)).head == 2


async def test_an_edit_whose_writer_died_before_it_counted_is_kept_by_the_next(
    platform: DatasetPlatform, seams: None
) -> None:
    datasets = platform.parts()
    name = await new_dataset(datasets, "log")
    await edit(datasets, name, "mine", "e0", a=0)
    fault = Fault(1, carried_out=True)
    with fault.active():
        await edit(datasets, name, "mine", "e1", b=1)
    assert fault.dead
    await edit(platform.parts(), name, "mine", "e2", c=2)
    await edit(platform.parts(), name, "mine", "e1", b=1)  # the client of the dead one asks again
    draft = (await datasets.repository.drafts.get(f"{name}/drafts/mine")).value
    assert draft.changes == 3 and draft.segments[0].count == 3


# Negative controls: without a mechanism the invariants break, so the tests above can fail.


async def test_control_without_the_compare_and_set_on_the_head_a_version_is_lost(
    platform: DatasetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overwrite(self: Committer, dataset: Any, begun: Dataset) -> Any:
        while True:
            latest = await self._repository.datasets.get(dataset.id)
            with contextlib.suppress(Conflict):
                return await self._repository.datasets.save(latest, begun)

    pauses = Pauses(monkeypatch)
    monkeypatch.setattr(Committer, "decide", overwrite)
    name = await with_a_version(platform.parts(), "lost")
    await edit(platform.parts(), name, "mine", "e", k1=100)
    await freeze(platform.parts(), name, "mine", "c")
    late = platform.parts()
    task = pauses.start(lambda: late.committer.visit(name), 1)  # its plan is made, and not decided on
    await pauses.reached.wait()
    others = platform.parts()
    await settle(others, name)
    await edit(others, name, "more", "e", k1=200)
    await freeze(others, name, "more", "c")
    await settle(others, name)
    pauses.resume.set()
    with pytest.raises(AssertionError):
        await asyncio.wait_for(task, 5)
        await check(others, name)


async def test_control_without_the_guard_of_closes_a_paused_writer_rewrites_history(
    platform: DatasetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def close(self: Repository, dataset: str, superseded: Any, version: int) -> None:
        latest = await revisions_of(self, dataset)
        ids = [max(r.start for r in latest if r.id.rpartition("/")[0] == id.rpartition("/")[0]) for id, _ in superseded]
        updates = [
            RowUpdate(f"{id.rpartition('/')[0]}/{n:012d}", set={"to": version})
            for (id, _), n in zip(superseded, ids, strict=True)
        ]
        await self.revisions(dataset).update_many(updates)

    pauses = Pauses(monkeypatch)
    real = Repository.close
    broken = False
    for at in range(1, await paused_commit(platform, pauses, 0) + 1):
        monkeypatch.setattr(Repository, "close", close)
        try:
            await paused_commit(platform, pauses, at)
        except AssertionError:
            broken = True
        monkeypatch.setattr(Repository, "close", real)
        if broken:
            break
    assert broken


async def test_control_without_request_ids_a_repeated_edit_counts_twice(
    platform: DatasetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = platform.parts()
    name = await new_dataset(datasets, "again")
    for request in ("", ""):
        await edit(datasets, name, "mine", request, a=0)
    draft = (await datasets.repository.drafts.get(f"{name}/drafts/mine")).value
    assert draft.segments[0].count == 2


async def test_a_lost_compare_and_set_means_looking_again(platform: DatasetPlatform) -> None:
    datasets = platform.parts()
    name = await with_a_version(datasets, "cas")
    stored = await datasets.repository.datasets.get(name)
    await datasets.repository.datasets.save(stored, dataclasses.replace(stored.value, description="x"))
    with pytest.raises(Conflict):
        await datasets.committer.decide(stored, stored.value)
