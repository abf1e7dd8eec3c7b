"""Steps of a dataset's life, done directly on the parts of a service, so that a test can stop any of them."""

from __future__ import annotations

from typing import Any

from penstock.store import now
from services.dataset.commands.commit_draft import commit_draft
from services.dataset.commands.create_dataset import create_dataset
from services.dataset.commands.edit_records import Action, EditRecords, RecordEdit
from services.dataset.model import Dataset, Edit
from services.dataset.service import Datasets
from tests.support.dataset_platform import PROJECT

ROWS: list[dict[str, Any]] = [{"id": f"k{n}", "v": n} for n in range(7)]
TIME = now()


async def new_dataset(datasets: Datasets, id: str, key_field: str = "id") -> str:
    """The name of a new dataset."""
    made = await create_dataset(datasets.repository, Dataset(PROJECT, id, TIME, TIME, key_field=key_field), "make")
    return made.id


async def edit(datasets: Datasets, name: str, draft: str, request: str, **values: int | None) -> None:
    """Put values, None deletes."""
    edits = [
        RecordEdit(key, Action.DELETE, {}) if value is None else RecordEdit(key, Action.PUT, {"id": key, "v": value})
        for key, value in values.items()
    ]
    command = EditRecords(datasets.repository, datasets.drafts)
    await command(f"{name}/drafts/{draft}", edits, Edit("ana", TIME, "", "person", draft), request)


async def freeze(datasets: Datasets, name: str, draft: str, request: str) -> None:
    """Freeze a draft."""
    await commit_draft(datasets.repository, f"{name}/drafts/{draft}", "m", "ana", request, lambda _: None)


async def settle(datasets: Datasets, name: str) -> None:
    """What the loops of a service would do for a dataset until there is nothing left."""
    await datasets.committer.visit(name)
    await datasets.partitions.visit(name)


async def with_a_version(datasets: Datasets, id: str) -> str:
    """A dataset with one version, of ROWS."""
    name = await new_dataset(datasets, id)
    await edit(datasets, name, "first", "e", **{str(row["id"]): int(row["v"]) for row in ROWS})
    await freeze(datasets, name, "first", "c")
    await settle(datasets, name)
    return name
