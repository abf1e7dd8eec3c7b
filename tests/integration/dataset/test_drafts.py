"""Drafts under several writers: what one of them left half done, another finishes; what is read for an edit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.dataset.commands.edit_records import Action, RecordEdit
from services.dataset.imports import Format, Import, ImportState
from services.dataset.ingest import stage
from services.dataset.model import DraftState, Edit
from services.dataset.repository import Repository
from tests.support.dataset_platform import DatasetPlatform
from tests.support.dataset_state import Fault, seams
from tests.support.dataset_steps import TIME, edit, freeze, new_dataset, settle, with_a_version

__all__ = ["seams"]


@pytest.fixture
async def platform(tmp_path: Path, mongodb_uri: str) -> AsyncIterator[DatasetPlatform]:
    running = DatasetPlatform.open(tmp_path, mongodb_uri)
    try:
        await running.parts().repository.prepare()
        yield running
    finally:
        await running.close()


async def test_an_imports_fields_are_the_drafts_whoever_makes_its_batch_count(
    platform: DatasetPlatform, seams: None
) -> None:
    datasets = platform.parts()
    name = await new_dataset(datasets, "settings", key_field="")
    part = stage.put_rows(platform.objects, ["a", "b"], ['{"id":"a","y":1}', '{"id":"b","y":2}'])
    spec = Import(
        name, "i1", "ana", "file", Format.JSONL, "id", 10, TIME, label_field="y", draft="mine",
        state=ImportState.COMMITTING, parts=(part,), records=2,
    )  # fmt: skip
    await datasets.repository.imports.create(spec.name, spec)
    fault = Fault(2, carried_out=True)  # the draft is opened, the batch is written, and does not count yet
    with fault.active():
        await datasets.importer.visit(spec.name)
    assert fault.dead
    other = platform.parts()
    await edit(other, name, "mine", "e", c=3)
    await other.importer.visit(spec.name)
    draft = (await other.repository.drafts.get(f"{name}/drafts/mine")).value
    assert (draft.segments[0].count, draft.key_field, draft.label_field) == (2, "id", "y")
    assert (await other.repository.imports.get(spec.name)).value.state is ImportState.SUCCEEDED
    await freeze(other, name, "mine", "c")
    await settle(other, name)
    dataset = (await other.repository.datasets.get(name)).value
    assert (dataset.head, dataset.key_field, dataset.label_field) == (1, "id", "y")


async def test_a_batch_that_others_have_just_counted_is_no_conflict_of_an_edit(
    platform: DatasetPlatform, seams: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes find the batch of a dead one, and both want to make it count."""
    datasets = platform.parts()
    name = await new_dataset(datasets, "both")
    await edit(datasets, name, "mine", "e0", a=0)
    fault = Fault(1, carried_out=True)
    with fault.active():
        await edit(datasets, name, "mine", "e1", b=1)
    assert fault.dead
    slow, fast = platform.parts(), platform.parts()
    count = slow.drafts._count

    async def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(slow.drafts, "_count", count)
        await edit(fast, name, "mine", "e3", d=3)
        return await count(*arguments)

    monkeypatch.setattr(slow.drafts, "_count", overtaken)
    await edit(slow, name, "mine", "e2", c=2)
    draft = (await datasets.repository.drafts.get(f"{name}/drafts/mine")).value
    assert draft.changes == 4 and draft.segments[0].count == 4


async def test_an_edit_after_a_conflict_reads_its_own_records_only(
    platform: DatasetPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = platform.parts()
    name = await with_a_version(datasets, "old")
    await edit(datasets, name, "mine", "e1", k1=100, k2=100, k3=100, k4=100)
    await edit(datasets, name, "theirs", "e2", k1=200)
    for draft in ("theirs", "mine"):
        await freeze(datasets, name, draft, "c")
        await settle(datasets, name)
    stored = await datasets.repository.drafts.get(f"{name}/drafts/mine")
    assert stored.value.state is DraftState.CONFLICTED
    read: set[str] = set()
    at = Repository.at

    async def watched(self: Repository, dataset: str, version: int, keys: Any) -> Any:
        read.update(keys)
        return await at(self, dataset, version, keys)

    monkeypatch.setattr(Repository, "at", watched)
    patch = RecordEdit("k1", Action.PATCH, {"w": 1})
    await datasets.servicer.edit_records(stored.id, [patch], Edit("ana", TIME, "", "person", "mine"))
    view = await datasets.servicer.views.open(name, 0, "mine", keys=["k1"])
    assert read == {"k1"}
    assert json.loads(view.overlay["k1"].text or "") == {"id": "k1", "v": 100, "w": 1}
