"""Aggregates: one document each, changed only by compare-and-set, with the events of a change in the same write.

So a change and the facts about it are either both there or both not, whatever dies when.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from penstock.errors import AlreadyExists, Conflict, NotFound, Unavailable
from penstock.store import database as db
from penstock.store import migrations as schema
from penstock.store.codec import Document, Scalar, decode_id, encode_id
from penstock.store.database import Database
from penstock.store.document import KEY, Change, Pending, Schema, Stored, index_field, is_live, read
from penstock.store.outbox import Fact
from penstock.store.query import MAX_IN, Page, Span, compile_query, run
from penstock.store.reader import Reader
from penstock.store.requests import Requests

V = TypeVar("V")
Outcome: TypeAlias = V | tuple[V, Sequence[Fact]]
_CONFLICTS = 20  # compare-and-sets that `change` loses before it gives up


class Aggregates(Generic[V]):
    """The aggregates of one kind: a collection of documents that each hold one frozen dataclass.

    `indexes` names what can be asked for (`find`) and how it follows from the value (None: not asked for); `unique`
    are those of them that no two aggregates share. The id of an aggregate that has events is its resource name.
    `migrations[n]` turns the stored value of schema version n into that of n + 1; `prepare` applies them.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        kind: type[V],
        *,
        indexes: Mapping[str, Callable[[V], Scalar | None]] | None = None,
        unique: Sequence[str] = (),
        schema_version: int = 1,
        migrations: Mapping[int, schema.Migration] | None = None,
    ) -> None:
        self.database = database
        self.name = name
        self.kind = kind
        self.indexes = dict(indexes or {})
        self.unique = tuple(unique)
        self.schema_version = schema_version
        self.migrations = dict(migrations or {})
        self._schema = Schema(self.indexes, schema_version)
        self._collection = database.collection(name)
        self._reader = Reader(database, name)
        self._requests = Requests(database, name)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._listeners: list[Callable[[Pending], None]] = []
        if undeclared := set(self.unique) - set(self.indexes):
            raise ValueError(f"unique fields must be declared in indexes: {sorted(undeclared)}")

    async def prepare(self) -> None:
        """Make the indexes, and bring every document to this schema version. Idempotent; call it before use."""
        await schema.prepare(self)

    def on_events(self, listener: Callable[[Pending], None]) -> None:
        """Call `listener` after each write (of this process) with the events it put into the outbox; for relays."""
        self._listeners.append(listener)

    async def create(
        self, id: str, value: V, events: Sequence[Fact] = (), *, request_id: str | None = None
    ) -> Stored[V]:
        """Store a new aggregate. The same `request_id` again answers what is stored; else AlreadyExists."""
        change = Change(self._schema, id, value, events, self._requests.first(request_id))
        document = change.inserted()

        async def insert(_: bool) -> bool:
            try:
                await db.write(lambda: self._collection.insert_one(dict(document)))
            except DuplicateKeyError:
                return False
            return True

        if await db.attempt(insert):
            self._announce(change)
            return self._stored(document)
        return await self._create_over(id, change, request_id)

    async def _create_over(self, id: str, change: Change[V], request_id: str | None) -> Stored[V]:
        """Decide what a duplicate means: our own insert, an earlier one of this request, a tombstone, or a clash."""
        existing = await self._read(id)
        if existing is None:
            raise AlreadyExists(f"Another one has the same {' or '.join(self.unique)} as {id}.")
        if change.wrote(existing):
            self._announce(change)
            return self._stored(existing)
        if is_live(existing):
            if await self._requests.saw(existing, request_id):
                return self._stored(existing)
            raise AlreadyExists(f"{id} exists already: choose another id, or change the one that exists.")
        if not await self._compare_and_set(id, existing["version"], change, change.revived(existing)):
            raise AlreadyExists(f"{id} has just been created by somebody else.")
        self._announce(change)
        return await self.get(id)

    async def get(self, id: str) -> Stored[V]:
        """The aggregate; raises NotFound if it does not exist or was deleted."""
        document = await self._read(id)
        if document is None or not is_live(document):
            raise NotFound(f"{id} does not exist.")
        return self._stored(document)

    async def get_many(self, ids: Sequence[str]) -> dict[str, Stored[V]]:
        """Those of `ids` that exist, by id."""
        found: dict[str, Stored[V]] = {}
        for start in range(0, len(ids), MAX_IN):
            chosen = [encode_id(id) for id in ids[start : start + MAX_IN]]
            for document in await self._reader.fetch({"_id": {"$in": chosen}}, None, None):
                if is_live(document):
                    found[decode_id(document["_id"])] = self._stored(document)
        return found

    async def save(
        self, stored: Stored[V], value: V, events: Sequence[Fact] = (), *, request_id: str | None = None
    ) -> Stored[V]:
        """Replace the value if nobody changed the aggregate since `stored` was read; else raises Conflict."""
        requests = stored.requests
        if request_id:
            requests = await self._requests.after(encode_id(stored.id), requests, request_id)
        change = Change(self._schema, stored.id, value, events, requests if request_id else None)
        update = change.updated(stored)
        if not await self._compare_and_set(stored.id, stored.version, change, update):
            raise Conflict(f"{stored.id} was changed by somebody else: read it again, then retry.")
        self._announce(change)
        return Stored(stored.id, value, stored.version + 1, stored.sequence + len(events), requests)

    async def change(
        self, id: str, transition: Callable[[V], Outcome[V]], *, request_id: str | None = None, etag: str = ""
    ) -> Stored[V]:
        """Read, apply `transition`, save; again if somebody else was faster.

        `transition` answers the new value, or it and the events of the change; it may raise domain errors, which
        pass through. The same value object means that there is nothing to write. A `request_id` seen before
        answers the stored aggregate without applying anything. Raises NotFound; Conflict after 20 lost races, or if
        an `etag` is given that is not the aggregate's.
        """
        async with self._lock(id):
            for _ in range(_CONFLICTS):
                document = await self._read(id)
                if document is None or not is_live(document):
                    raise NotFound(f"{id} does not exist.")
                stored = self._stored(document)
                if await self._requests.saw(document, request_id):
                    return stored
                stored.check_etag(etag)
                outcome = transition(stored.value)
                value, events = outcome if isinstance(outcome, tuple) else (outcome, ())
                if value is stored.value and not events:
                    return stored
                try:
                    return await self.save(stored, value, events, request_id=request_id)
                except Conflict:
                    continue
        raise Conflict(f"{id} is being changed by too many others; try again in a moment.")

    async def delete(self, stored: Stored[V], events: Sequence[Fact] = ()) -> None:
        """Leave a tombstone that keeps the event sequence. Raises Conflict if somebody changed the aggregate."""
        change = Change(self._schema, stored.id, None, events)
        if not await self._compare_and_set(stored.id, stored.version, change, change.buried(stored)):
            raise Conflict(f"{stored.id} was changed by somebody else: read it again, then retry.")
        self._announce(change)

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
        where: Callable[[V], bool] | None = None,
    ) -> Page[Stored[V]]:
        """Aggregates by declared fields, ordered by one of them (default: by id), ties by id.

        `limit` None means all. `after` is the `next` of an earlier page of the same query. `where` is applied here,
        not in the database. An aggregate whose `order_by` field is None is not found.
        """
        order_by = order_by or (span.field if span else "id")
        query = compile_query(self._field, eq, any_of, span, order_by, descending)
        for filter in query.filters:
            filter["live"] = 1
        read_values: dict[str, Stored[V]] = {}

        def accept(document: Document) -> bool:
            stored = read_values[document["_id"]] = self._stored(document)
            return where is None or where(stored.value)

        page = await run(query, self._reader.fetch, limit, after, accept)
        return Page([read_values[document["_id"]] for document in page], page.next)

    async def pending(self, limit: int = 500) -> list[Pending]:
        """Aggregates with unpublished events; for relays."""
        documents = await self._reader.fetch({"pending": 1}, None, limit, ("outbox", "sequence"))
        return [Pending(d["_id"], d["sequence"], tuple(d["outbox"])) for d in documents]

    async def trim(self, published: Sequence[Pending]) -> None:
        """Remove published events from the outboxes. What came meanwhile, or before them, stays.

        `trimmed` is the sequence up to which an outbox was emptied: so nothing is removed but what it was read as.
        """
        clear, pull = [], []
        for one in published:
            settled = {"trimmed": one.sequence}
            before = {"_id": one.id, "trimmed": one.sequence - len(one.entries)}
            emptied = {"$set": {**settled, "outbox": []}, "$unset": {"pending": ""}}
            clear.append(UpdateOne({**before, "sequence": one.sequence}, emptied))
            pull.append(UpdateOne(before, {"$set": settled, "$pull": {"outbox": {"$in": list(one.entries)}}}))
        if clear and await self._bulk(clear) < len(clear):
            await self._bulk(pull)

    async def _bulk(self, updates: Sequence[UpdateOne]) -> int:
        operation = self._collection.bulk_write
        result = await db.attempt(lambda _: db.write(lambda: operation(updates, ordered=False)))
        return result.modified_count

    async def _compare_and_set(self, id: str, version: int, change: Change[V], update: Document) -> bool:
        async def once(again: bool) -> bool:
            target = {"_id": encode_id(id), "version": version}
            try:
                result = await db.write(lambda: self._collection.update_one(target, update))
            except DuplicateKeyError as error:
                raise AlreadyExists(f"Another one has the same {' or '.join(self.unique)} as {id}.") from error
            if result.modified_count == 1:
                return True
            if not again:
                return False
            # An earlier call may have been carried out: then our token is in the document.
            document = await self._read(id)
            if document is None or change.wrote(document):
                return document is not None
            if change.forgotten(document, version):  # neither "yes" nor "no" is known, and "no" would do it again
                raise Unavailable(f"{id} was changed too often to tell whether this was done: look, then try again.")
            return False

        return await db.attempt(once)

    async def _read(self, id: str) -> Document | None:
        return await self._reader.get(encode_id(id))

    def _stored(self, document: Document) -> Stored[V]:
        return read(document, self.kind)

    def _field(self, name: str) -> str:
        if name == "id":
            return KEY
        if name not in self.indexes:
            raise ValueError(f"{self.name}: '{name}' is not declared in indexes ({', '.join(self.indexes)})")
        return index_field(name)

    def _lock(self, id: str) -> asyncio.Lock:
        lock = self._locks.get(id)
        if lock is None:
            lock = self._locks[id] = asyncio.Lock()
        return lock

    def _announce(self, change: Change[V]) -> None:
        if change.pending.entries:
            for listener in self._listeners:
                listener(change.pending)
