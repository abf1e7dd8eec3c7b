"""Bringing a collection to what the code declares: indexes made, values of older schema versions turned into newer.

A collection's schema version and indexes are noted in `store_meta` once all its documents have them, so a start that
changes nothing reads one document. A migration cut short is taken up again: each document is changed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from pymongo import ReplaceOne, UpdateOne

from penstock.errors import FailedPrecondition
from penstock.store import database as db
from penstock.store.codec import Document, Scalar, decode_tree, encode_tree
from penstock.store.converter import from_document, to_document
from penstock.store.database import Database
from penstock.store.document import KEY, index_field, index_values, is_live
from penstock.store.reader import Reader

Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
_META = "store_meta"
_BATCH = 500


class Collection(Protocol):
    """What of `Aggregates` is brought up to date."""

    name: str
    database: Database
    kind: type[Any]
    indexes: dict[str, Callable[[Any], Scalar | None]]
    unique: tuple[str, ...]
    schema_version: int
    migrations: dict[int, Migration]


async def prepare(collection: Collection) -> None:
    """Make the indexes and migrate the documents; idempotent. Raises FailedPrecondition for a newer schema."""
    database, name = collection.database, collection.name
    meta = Reader(database, _META)
    wanted: Document = {"schema_version": collection.schema_version, "fields": sorted(collection.indexes)}
    noted = await meta.get(name)
    if noted is not None and noted["schema_version"] > collection.schema_version:
        raise FailedPrecondition(
            f"The stored {name} were written by a newer release (schema {noted['schema_version']}, this one knows "
            f"{collection.schema_version}): start that release, or restore a backup made before it."
        )
    await make_indexes(database, name, [KEY, *map(index_field, collection.indexes)], unique=unique_fields(collection))
    if noted is not None and {key: noted[key] for key in wanted} == wanted:
        return
    await _migrate(collection)
    replace = ReplaceOne({"_id": name}, {"_id": name, **wanted}, upsert=True)
    await db.attempt(lambda _: db.write(lambda: database.collection(_META).bulk_write([replace])))


def unique_fields(collection: Collection) -> list[str]:
    """The stored fields that are unique."""
    return [KEY, *map(index_field, collection.unique)]


async def make_indexes(database: Database, name: str, fields: Sequence[str], unique: Sequence[str] = ()) -> None:
    """Make single-field indexes (sparse where unique, as tombstones have no fields) and the one of pending events."""
    target = database.collection(name)
    for field in fields:
        options: Mapping[str, bool] = {"unique": True, "sparse": True} if field in unique else {}
        await db.attempt(lambda _, f=field, o=options: target.create_index(f, **o))  # type: ignore[misc]
    if unique:
        await db.attempt(lambda _: target.create_index("pending", sparse=True))


async def _migrate(collection: Collection) -> None:
    target = collection.database.collection(collection.name)
    documents = await Reader(collection.database, collection.name).fetch({}, None, None)
    updates = [_update(collection, document) for document in documents if is_live(document)]
    for start in range(0, len(updates), _BATCH):
        batch = updates[start : start + _BATCH]
        await db.attempt(lambda _, b=batch: db.write(lambda: target.bulk_write(b, ordered=False)))  # type: ignore[misc]


def _update(collection: Collection, document: Document) -> UpdateOne:
    value = decode_tree(document["value"])
    for version in range(document["schema_version"], collection.schema_version):
        value = collection.migrations[version](value)
    typed = from_document(encode_tree(value), collection.kind)
    present, absent = index_values(collection.indexes, typed)
    settled = {
        "value": to_document(typed),
        "schema_version": collection.schema_version,
        "version": document["version"] + 1,
        **present,
    }
    update: Document = {"$set": settled, **({"$unset": absent} if absent else {})}
    return UpdateOne({"_id": document["_id"], "version": document["version"]}, update)
