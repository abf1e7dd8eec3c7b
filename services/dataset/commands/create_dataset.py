"""Create an empty dataset."""

from __future__ import annotations

from penstock.store import Stored
from services.dataset.model import Dataset
from services.dataset.repository import Repository


async def create_dataset(repository: Repository, dataset: Dataset, request_id: str) -> Stored[Dataset]:
    """Store the dataset. The same request again gives the same; else raises AlreadyExists."""
    # Indexes are portable only on an empty collection, so before anything can be committed.
    await repository.revisions(dataset.name).prepare()
    return await repository.datasets.create(dataset.name, dataset, request_id=request_id or None)
