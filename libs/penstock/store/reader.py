"""Reads of one collection: small ones on the event loop, big ones by the synchronous driver in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.store.codec import Document
from penstock.store.database import Database, attempt

_BIG = 300  # documents from which a thread pays


class Reader:
    """Finds documents by filters that are already encoded."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._collection = database.collection(name)

    async def get(self, stored_id: str) -> Document | None:
        """One document by its stored `_id`."""
        return await attempt(lambda _: self._collection.find_one({"_id": stored_id}))

    async def fetch(
        self,
        filter: Document,
        sort: tuple[str, int] | None,
        limit: int | None,
        fields: Sequence[str] | None = None,
    ) -> list[Document]:
        """The documents of one query."""
        if limit is None or limit > _BIG:
            return await attempt(lambda _: asyncio.to_thread(self._fetch_in_thread, filter, sort, limit, fields))
        return await attempt(lambda _: self._fetch(filter, sort, limit, fields))

    async def _fetch(
        self, filter: Document, sort: tuple[str, int] | None, limit: int, fields: Sequence[str] | None
    ) -> list[Document]:
        cursor = self._collection.find(filter, fields, batch_size=limit, limit=limit)
        return await (cursor.sort(*sort) if sort else cursor).to_list(limit)

    def _fetch_in_thread(
        self, filter: Document, sort: tuple[str, int] | None, limit: int | None, fields: Sequence[str] | None
    ) -> list[Document]:
        collection = self._database.threaded_collection(self._name)
        cursor = collection.find(filter, fields, limit=limit or 0)
        return list(cursor.sort(*sort) if sort else cursor)
