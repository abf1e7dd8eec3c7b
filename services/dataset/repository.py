"""What the dataset service keeps, and the questions it asks about it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from penstock import names
from penstock.errors import NotFound
from penstock.store import Aggregates, Database, Page, Rows, Span, Stored, format_time, parse_time
from services.dataset.imports import Import
from services.dataset.model import CURRENT, Dataset, Draft, Edit, Version

WINDOW = 200  # revisions read at a time when paging by key


@dataclass(frozen=True)
class Revision:
    """One state of a record: in versions `start` to `end` - 1. `text` is its canonical JSON.

    `edit` made it; `removal` is the edit that removed the record at `end`, if that is how it ended.
    """

    key: str
    start: int
    end: int
    text: str
    edit: Edit
    removal: Edit | None = None

    def visible(self, version: int) -> bool:
        """Whether it is what a version has."""
        return self.start <= version < self.end

    @property
    def id(self) -> str:
        """Its id in the database."""
        return revision_id(self.key, self.start)


def revision_id(key: str, number: int) -> str:
    """`<encoded key>/<number, 12 digits>`."""
    encoded = key if key.isascii() and key.isalnum() else quote(key, safe="")
    return f"{encoded}/{number:012d}"


class Repository:
    """Datasets, versions, drafts, imports, the log of edits, and a collection of revisions for each dataset."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.datasets = Aggregates(
            database,
            "datasets",
            Dataset,
            indexes={
                "project": lambda dataset: dataset.project,
                "name": lambda dataset: dataset.name,
                "committing": lambda dataset: 1 if dataset.committing else None,
            },
        )
        self.versions = Aggregates(
            database,
            "versions",
            Version,
            indexes={
                "commit": lambda version: version.commit,
                "unwritten": lambda version: 1 if version.manifest is None else None,
                "unwritten_of": lambda version: version.dataset if version.manifest is None else None,
            },
        )
        self.drafts = Aggregates(
            database,
            "drafts",
            Draft,
            indexes={
                "dataset": lambda draft: draft.dataset,
                "created": lambda draft: draft.created,
                "frozen": lambda draft: 1 if draft.frozen else None,
                "frozen_of": lambda draft: draft.dataset if draft.frozen else None,
            },
        )
        self.imports = Aggregates(
            database, "imports", Import, indexes={"active": lambda each: 1 if each.active else None}
        )
        self.edits = Rows(database, "edits")
        self._revisions: dict[str, Rows] = {}

    async def prepare(self) -> None:
        """Make the indexes."""
        for kept in (self.datasets, self.versions, self.drafts, self.imports, self.edits):
            await kept.prepare()

    def revisions(self, dataset: str) -> Rows:
        """The collection of a dataset's revisions; its indexes are made when the dataset is."""
        if dataset not in self._revisions:
            name = names.parse(dataset, kind="dataset")
            # A stand-in for MongoDB takes letters, digits and '_' only; the digest keeps `a-b` and `a_b` apart.
            digest = hashlib.sha256(str(name).encode()).hexdigest()[:12]
            collection = f"revisions_{name.project}_{name.id}_{digest}".replace("-", "_")
            self._revisions[dataset] = Rows(self._database, collection, indexes=("key", "from", "to"))
        return self._revisions[dataset]

    async def version(self, dataset: Dataset, number: int) -> Stored[Version]:
        """A version that the head has reached. Raises NotFound."""
        name = f"{dataset.name}/versions/{number}"
        if not 1 <= number <= dataset.head:
            raise NotFound(f"{name} does not exist: the newest version is {dataset.head}.")
        return await self.versions.get(name)

    async def version_of(self, commit: str, head: int) -> Version | None:
        """The version that a freezing of a draft became, if it has."""
        found = await self.versions.find(eq={"commit": commit}, where=lambda version: version.number <= head)
        return found[0].value if found else None

    async def list_versions(self, dataset: Dataset, below: int, limit: int) -> list[Stored[Version]]:
        """The newest versions with numbers under `below`."""
        first = min(below - 1, dataset.head)
        wanted = [f"{dataset.name}/versions/{n}" for n in range(first, max(first - limit, 0), -1)]
        found = await self.versions.get_many(wanted)
        return [found[name] for name in wanted if name in found]

    async def list_datasets(self, project: str, limit: int, after: str | None) -> Page[Stored[Dataset]]:
        """A page of a project's datasets, by name."""
        return await self.datasets.find(eq={"project": project}, order_by="name", limit=limit, after=after)

    async def list_drafts(self, dataset: str, limit: int, after: str | None) -> Page[Stored[Draft]]:
        """A page of a dataset's drafts, newest first."""
        return await self.drafts.find(
            eq={"dataset": dataset}, order_by="created", descending=True, limit=limit, after=after
        )

    async def frozen(self) -> list[Stored[Draft]]:
        """All frozen drafts."""
        return (await self.drafts.find(eq={"frozen": 1})).items

    async def queue(self, dataset: str) -> list[Stored[Draft]]:
        """The frozen drafts of a dataset, oldest first."""
        found = await self.drafts.find(eq={"frozen_of": dataset})
        return sorted(found, key=lambda stored: (stored.value.frozen or stored.value.updated, stored.id))

    async def unwritten(self, dataset: Dataset) -> list[Stored[Version]]:
        """The versions of a dataset that have no manifest yet, oldest first."""
        found = await self.versions.find(
            eq={"unwritten_of": dataset.name}, where=lambda version: version.number <= dataset.head
        )
        return sorted(found, key=lambda stored: stored.value.number)

    async def current(self, dataset: str, keys: Sequence[str]) -> dict[str, Revision]:
        """The revisions of `keys` that nothing has superseded, by key."""
        if not keys:
            return {}
        rows = await self.revisions(dataset).find(eq={"to": CURRENT}, any_of={"key": keys})
        return {row["key"]: revision_of(row) for row in rows}

    async def at(self, dataset: str, version: int, keys: Sequence[str]) -> dict[str, Revision]:
        """The revisions of `keys` that a version has, by key."""
        if not keys or not version:
            return {}
        rows = await self.revisions(dataset).find(eq={"to": CURRENT}, any_of={"key": keys})
        found = {r.key: r for r in map(revision_of, rows) if r.visible(version)}
        # The others were superseded since, are being superseded now, or are not there.
        rest = [key for key in keys if key not in found]
        if rest:
            older = await self.revisions(dataset).find(any_of={"key": rest})
            found |= {r.key: r for r in map(revision_of, older) if r.visible(version)}
        return found

    async def history(self, dataset: str, key: str) -> list[Revision]:
        """All revisions of a record, oldest first."""
        rows = await self.revisions(dataset).find(eq={"key": key})
        return sorted(map(revision_of, rows), key=lambda revision: revision.start)

    async def by_ids(self, dataset: str, ids: Sequence[str]) -> dict[str, Revision]:
        """Revisions by their ids."""
        return {id: revision_of(row) for id, row in (await self.revisions(dataset).get_many(ids)).items()}

    async def page(self, dataset: str, version: int, after: str | None, limit: int) -> list[Revision]:
        """The next `limit` records of a version whose keys come after `after`, by key."""
        found: list[Revision] = []
        cursor: str | None = None
        span = Span("key", gt=after) if after is not None else None
        while len(found) < limit:
            window = max(WINDOW, limit - len(found))
            rows = await self.revisions(dataset).find(span=span, order_by="key", limit=window, after=cursor)
            found += [r for r in map(revision_of, rows) if r.visible(version)]
            cursor = rows.next
            if cursor is None:
                break
        return found[:limit]

    async def changed(self, dataset: str, field: str, after: int, to: int) -> AsyncIterator[list[Revision]]:
        """The revisions whose `from` or `to` (`field`) is in after + 1 .. to, in windows."""
        async for rows in self.revisions(dataset).scan(span=Span(field, gt=after, lte=to), order_by=field):
            yield [revision_of(row) for row in rows]

    async def insert(self, dataset: str, revisions: Iterable[Revision]) -> None:
        """Store revisions; those that are there already stay as they are."""
        await self.revisions(dataset).insert([_row(revision) for revision in revisions])

    async def close(self, dataset: str, superseded: Iterable[tuple[str, Edit | None]], version: int) -> None:
        """End revisions (id, and the edit if it removes the record) that are still current, with `version`."""
        by_removal: dict[Edit | None, list[str]] = {}
        for id, removal in superseded:
            by_removal.setdefault(removal, []).append(id)
        for removal, ids in by_removal.items():
            ended = {"to": version} if removal is None else {"to": version, "removal": edit_document(removal)}
            await self.revisions(dataset).update_all(ids, expect={"to": CURRENT}, set=ended)


def _row(revision: Revision) -> dict[str, Any]:
    return {
        "_id": revision.id,
        "key": revision.key,
        "from": revision.start,
        "to": revision.end,
        "data": revision.text,
        "edit": edit_document(revision.edit),
    }


def revision_of(row: dict[str, Any]) -> Revision:
    """A stored row as a value."""
    removal = edit_of(row["removal"]) if "removal" in row else None
    return Revision(row["key"], row["from"], row["to"], row["data"], edit_of(row["edit"]), removal)


@lru_cache(64)
def edit_document(edit: Edit) -> dict[str, str]:
    """An edit as it is stored, everywhere; do not change what you get: many records have the same."""
    return {
        "author": edit.author,
        "time": format_time(edit.time),
        "why": edit.why,
        "origin": edit.origin,
        "source": edit.source,
    }


def edit_of(document: dict[str, str]) -> Edit:
    """The inverse of edit_document."""
    return Edit(
        document["author"],
        parse_time(document["time"]),
        document["why"],
        document["origin"],
        document["source"],
    )
