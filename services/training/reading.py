"""Reads that stream or page: metrics, artifacts, the files of a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from penstock.errors import NotFound
from penstock.objects import ObjectStore
from services.training.model import Artifact, Run
from services.training.repository import Point, Repository

_BATCHES = 50
Position = list[str | int]  # the batch and the place in it where the next page begins


async def list_metrics(
    repository: Repository, run: Run, attempt: int, metric: str, size: int, position: Position | None
) -> tuple[list[Point], Position | None]:
    """A page of an attempt's metrics in the order of their reporting, and where the next begins.

    `attempt` 0 is the accepted one, or the current one while none is accepted.
    """
    attempt = attempt or run.accepted or run.attempt
    at, skip = (str(position[0]), int(position[1])) if position else ("", 0)
    page: list[Point] = []
    while attempt:
        batches = await repository.batches(run.name, attempt, at, _BATCHES)
        for id, points in batches:
            for index, found in enumerate(points):
                if (id == at and index < skip) or (metric and found[0] != metric):
                    continue
                if len(page) == size:
                    return page, [id, index]
                page.append(found)
        if len(batches) < _BATCHES:
            break
        at, skip = batches[-1][0], len(batches[-1][1])
    return page, None


def find_file(files: Iterable[Artifact], path: str, owner: str) -> Artifact:
    """The file of that path. Raises NotFound with those there are."""
    listed = list(files)
    for file in listed:
        if file.path == path:
            return file
    known = ", ".join(file.path for file in listed[:20]) or "none"
    raise NotFound(f"{owner} has no file '{path[:200]}'. It has: {known}.", field="path")


async def stream(objects: ObjectStore, digest: str) -> AsyncIterator[bytes]:
    """The content under a digest in chunks of at most 1 MiB, read in a thread. Raises NotFound, DataCorrupt."""
    chunks = objects.read(digest)
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk
    finally:
        await asyncio.to_thread(chunks.close)  # type: ignore[attr-defined]
