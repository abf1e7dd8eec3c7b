"""Rows: what grows beside aggregates, such as metrics, records and events; flat documents with derived ids.

A row's id follows from what it says, so writing it twice is writing it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import DeleteMany, ReplaceOne, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError

from penstock.errors import InvalidArgument
from penstock.store import database as db
from penstock.store.codec import (
    Document,
    Scalar,
    decode_id,
    decode_scalar,
    decode_tree,
    encode_id,
    encode_key,
    encode_scalar,
    encode_tree,
)
from penstock.store.database import Database
from penstock.store.migrations import make_indexes
from penstock.store.query import MAX_IN, Page, Span, compile_query, run
from penstock.store.reader import Reader

BATCH = 500  # documents a request: nx-27017 answers one request at a time, and others wait
_DUPLICATE = 11000
_RESERVED = frozenset({"_id", "id"})  # nx-27017 makes no index on a field `id`


@dataclass(frozen=True)
class RowUpdate:
    """A compare-and-set of one row: where all of `expect` holds, `set` these fields and `unset` those."""

    id: str
    expect: Mapping[str, Any] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    unset: Sequence[str] = ()


class Rows:
    """A collection of flat documents: `_id` (text), fields that can be asked for (`indexes`), and any others.

    Indexed fields hold texts, numbers, booleans or aware times, always of one type, and come back as they were;
    times elsewhere come back as text, tuples as lists. Keys hold JSON. A field that is None is not stored.
    """

    def __init__(self, database: Database, name: str, indexes: Sequence[str] = ()) -> None:
        self.database = database
        self.name = name
        self.indexes = tuple(indexes)
        self._indexed = frozenset(indexes)
        self._collection = database.collection(name)
        self._reader = Reader(database, name)
        self._prepared = False
        self._preparing = asyncio.Lock()
        if _RESERVED & self._indexed:
            raise ValueError("'id' and '_id' cannot be indexes of rows")

    async def prepare(self) -> None:
        """Make the indexes; the first write does it too."""
        async with self._preparing:
            if not self._prepared:
                await make_indexes(self.database, self.name, self.indexes)
                self._prepared = True

    async def insert(self, documents: Iterable[Mapping[str, Any]]) -> int:
        """Store new rows, 500 a request; those whose `_id` exists are left as they are. Returns how many were new.

        Not atomic: if it fails, some are stored; do it again. After a lost connection the number may be too small.
        """
        await self._ensure()
        encoded = [self._encode(document) for document in documents]
        return sum([await self._insert(encoded[at : at + BATCH]) for at in range(0, len(encoded), BATCH)])

    async def _insert(self, batch: list[Document]) -> int:
        async def once(_: bool) -> int:
            try:
                await db.write(lambda: self._collection.insert_many([dict(d) for d in batch], ordered=False))
            except BulkWriteError as error:
                return len(batch) - _duplicates(error)
            return len(batch)

        return await db.attempt(once)

    async def get(self, id: str) -> Document | None:
        """One row, or None."""
        document = await self._reader.get(encode_id(id))
        return None if document is None else self._decode(document)

    async def get_many(self, ids: Sequence[str]) -> dict[str, Document]:
        """Those of `ids` that exist, by id."""
        found: dict[str, Document] = {}
        for start in range(0, len(ids), MAX_IN):
            chosen = [encode_id(id) for id in ids[start : start + MAX_IN]]
            for document in await self._reader.fetch({"_id": {"$in": chosen}}, None, None):
                row = self._decode(document)
                found[row["_id"]] = row
        return found

    async def find(
        self,
        *,
        eq: Mapping[str, Scalar] | None = None,
        any_of: Mapping[str, Sequence[Scalar]] | None = None,
        span: Span | None = None,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Document]:
        """Rows by indexed fields, ordered by one of them, ties by id; `after` is the `next` of an earlier page.

        `limit` None means all. Without `order_by` and `span` the order is by id, and a limit takes any, without pages.
        """
        query = compile_query(self._field, eq, any_of, span, order_by, descending)
        page = await run(query, self._reader.fetch, limit, after, lambda _: True)
        return Page([self._decode(document) for document in page], page.next)

    async def scan(
        self, *, eq: Mapping[str, Scalar] | None = None, span: Span | None = None, order_by: str, batch: int = 1_000
    ) -> AsyncIterator[list[Document]]:
        """All rows of a query in windows of about `batch`, read in a thread: for big ranges."""
        after: str | None = None
        while True:
            page = await self.find(eq=eq, span=span, order_by=order_by, limit=batch, after=after)
            if page:
                yield page.items
            if page.next is None:
                return
            after = page.next

    async def update(
        self,
        id: str,
        *,
        expect: Mapping[str, Any] | None = None,
        set: Mapping[str, Any] | None = None,
        unset: Sequence[str] = (),
    ) -> bool:
        """Change a row if all of `expect` holds (compare-and-set); returns whether it did.

        After a lost connection a row that already looks as asked for counts as changed by this call: set something
        that only this caller sets where that matters. A write that changes nothing returns True too.
        """
        await self._ensure()
        encoded = self._update(RowUpdate(id, expect or {}, set or {}, unset))

        async def once(again: bool) -> bool:
            result = await db.write(lambda: self._collection.update_one(*encoded))
            if result.matched_count:
                return True
            if not again:
                return False
            row = await self.get(id)
            return (
                row is not None
                and all(row.get(key) == value for key, value in (set or {}).items())
                and not any(key in row for key in unset)
            )

        return await db.attempt(once)

    async def update_many(self, updates: Sequence[RowUpdate]) -> int:
        """Many compare-and-sets, 500 a request; returns how many rows changed (too few after a lost connection)."""
        await self._ensure()
        operations = [UpdateOne(*self._update(update)) for update in updates]
        return sum([(await self._bulk(operations[at : at + BATCH]))[0] for at in range(0, len(operations), BATCH)])

    async def update_all(self, ids: Sequence[str], *, expect: Mapping[str, Any], set: Mapping[str, Any]) -> int:
        """The same compare-and-set of many rows; returns how many changed (too few after a lost connection)."""
        await self._ensure()
        known, changes, operations = self._expected(expect), self._changes(set, ()), []
        for at in range(0, len(ids), MAX_IN):
            some = [encode_id(id) for id in ids[at : at + MAX_IN]]
            operations.append(UpdateMany({"_id": {"$in": some}, **known}, changes))
        return (await self._bulk(operations))[0]

    async def upsert(self, id: str, document: Mapping[str, Any]) -> None:
        """Store a row, replacing one with this id."""
        await self.upsert_many([{**document, "_id": id}])

    async def upsert_many(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Store rows, replacing those with the same `_id`."""
        await self._ensure()
        encoded = [self._encode(document) for document in documents]
        operations = [ReplaceOne({"_id": row["_id"]}, row, upsert=True) for row in encoded]
        for at in range(0, len(operations), BATCH):
            await self._bulk(operations[at : at + BATCH])

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id; returns how many there were (too few after a lost connection)."""
        await self._ensure()
        chosen = [encode_id(id) for id in ids]
        operations = [DeleteMany({"_id": {"$in": chosen[at : at + MAX_IN]}}) for at in range(0, len(chosen), MAX_IN)]
        return sum([(await self._bulk([operation]))[1] for operation in operations])

    async def drop(self) -> None:
        """Delete the whole collection."""
        await db.attempt(lambda _: db.write(self._collection.drop))
        self._prepared = False

    async def _bulk(self, operations: Sequence[Any]) -> tuple[int, int]:
        async def once(_: bool) -> tuple[int, int]:
            result = await db.write(lambda: self._collection.bulk_write(operations, ordered=False))
            return result.modified_count, result.deleted_count

        return await db.attempt(once) if operations else (0, 0)

    async def _ensure(self) -> None:
        if not self._prepared:
            await self.prepare()

    def _field(self, name: str) -> str:
        if name not in self._indexed:
            raise ValueError(f"{self.name}: '{name}' is not declared in indexes ({', '.join(self.indexes)})")
        return name

    def _encode(self, document: Mapping[str, Any]) -> Document:
        return {**self._encode_fields(document), "_id": encode_id(document["_id"])}

    def _encode_fields(self, fields: Mapping[str, Any]) -> Document:
        indexed = self._indexed
        return {
            encode_key(name): encode_scalar(value) if name in indexed else encode_tree(value)
            for name, value in fields.items()
            if value is not None
        }

    def _decode(self, document: Document) -> Document:
        row: Document = decode_tree(document)
        row["_id"] = decode_id(row["_id"])
        for name in self._indexed:
            if name in row:
                row[name] = decode_scalar(row[name])
        return row

    def _update(self, update: RowUpdate) -> tuple[Document, Document]:
        return {"_id": encode_id(update.id), **self._expected(update.expect)}, self._changes(update.set, update.unset)

    def _expected(self, fields: Mapping[str, Any]) -> Document:
        for name, value in fields.items():
            if name not in self._indexed and not isinstance(value, bool | int):
                raise ValueError(f"{self.name}: only indexed fields and whole numbers can be expected, not '{name}'")
        return self._encode_fields(fields)

    def _changes(self, set: Mapping[str, Any], unset: Sequence[str]) -> Document:
        if "_id" in set:
            raise InvalidArgument("The id of a row cannot be changed.")
        changes: Document = {}
        if settled := self._encode_fields(set):
            changes["$set"] = settled
        # Setting None and unsetting are the same; an update without any operator is refused by some servers.
        absent = [*unset, *(name for name, value in set.items() if value is None)]
        if absent:
            changes["$unset"] = dict.fromkeys(absent, "")
        if not changes:
            raise InvalidArgument("An update must set or unset something.")
        return changes


def _duplicates(error: BulkWriteError) -> int:
    """How many documents existed already; raises the error if anything else went wrong."""
    failures = error.details.get("writeErrors", [])
    if error.details.get("writeConcernErrors") or any(failure["code"] != _DUPLICATE for failure in failures):
        raise error
    return len(failures)
