"""The document of an aggregate: its fields, and the updates that change it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from penstock.errors import Conflict
from penstock.store.codec import Document, Scalar, decode_id, encode_id, encode_scalar
from penstock.store.converter import from_document, to_document
from penstock.store.outbox import Fact, entries

V = TypeVar("V")
KEY = "key"  # the id as an indexed field: nothing may sort by `_id`, and nx-27017 makes no index on a field `id`
WRITES = 16  # tokens of the last writes, by which a writer recognises its own after an unknown outcome


def index_field(name: str) -> str:
    """Where the copy of an indexed property is stored."""
    return f"by_{name}"


@dataclass(frozen=True)
class Remembered:
    """The requests in a document, oldest first, each as its time and its id; `beside`: the newest time in rows."""

    recent: tuple[str, ...] = ()
    beside: str = ""

    @classmethod
    def of(cls, document: Document) -> Remembered:
        """Those of a stored document."""
        return cls(tuple(document.get("requests", ())), document.get("requests_beside", ""))

    def fields(self) -> Document:
        """What is stored of them."""
        return {"requests": list(self.recent), **({"requests_beside": self.beside} if self.beside else {})}


@dataclass(frozen=True)
class Stored(Generic[V]):
    """An aggregate as it was read: its value, and the version that a save is compared with."""

    id: str
    value: V
    version: int
    sequence: int  # of its last event; 0 if it had none
    requests: Remembered = field(default=Remembered(), repr=False, compare=False)

    @property
    def etag(self) -> str:
        """An opaque text that changes with every change (AIP-154)."""
        return str(self.version)

    def check_etag(self, etag: str) -> None:
        """Raise Conflict if `etag` is that of another version; "" is any."""
        if etag and etag != self.etag:
            raise Conflict(f"{self.id} was changed since you read it: read it again, and decide over that.")


@dataclass(frozen=True)
class Pending:
    """Unpublished events of one aggregate, the last with `sequence`; `id` as stored."""

    id: str
    sequence: int
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Schema(Generic[V]):
    """What shapes the documents of a collection: its index copies and the version of its values' form."""

    indexes: Mapping[str, Callable[[V], Scalar | None]]
    version: int


def new_token() -> str:
    """A token that no other write has."""
    return secrets.token_hex(6)


def is_live(document: Document) -> bool:
    """Whether the document is no tombstone."""
    return "live" in document


def read(document: Document, kind: type[V]) -> Stored[V]:
    """The aggregate that a live document holds."""
    value = from_document(document["value"], kind)
    requests = Remembered.of(document)
    return Stored(decode_id(document["_id"]), value, document["version"], document["sequence"], requests)


def index_values(indexes: Mapping[str, Callable[[V], Scalar | None]], value: V) -> tuple[Document, Document]:
    """The index copies of a value: those to set, and those to unset."""
    present: Document = {}
    absent: Document = {}
    for name, extract in indexes.items():
        found = extract(value)
        if found is None:
            absent[index_field(name)] = ""
        else:
            present[index_field(name)] = encode_scalar(found)
    return present, absent


class Change(Generic[V]):
    """One write of one aggregate: what it sets, and the token by which it is recognised.

    `requests` replaces those that the document remembers; None leaves them.
    """

    def __init__(
        self,
        schema: Schema[V],
        id: str,
        value: V | None,
        events: Sequence[Fact],
        requests: Remembered | None = None,
    ) -> None:
        self._schema = schema
        self._id = id
        self._value = value
        self._events = events
        self._requests = requests
        self._token = new_token()
        self._outbox: list[str] = []
        self._sequence = 0

    def wrote(self, document: Document) -> bool:
        """Whether the document has seen this very write, and remembers it."""
        return self._token in document.get("writes", ())

    def forgotten(self, document: Document, version: int) -> bool:
        """Whether so many came after a write of `version` that the document would not remember it any more."""
        return bool(document["version"] > version + WRITES)

    @property
    def pending(self) -> Pending:
        """The events that this write put into the outbox; once its document or update was made."""
        return Pending(encode_id(self._id), self._sequence, tuple(self._outbox))

    def inserted(self) -> Document:
        """The document of a new aggregate."""
        outbox = self._entries(0)
        return {
            "_id": encode_id(self._id),
            "version": 1,
            "sequence": len(outbox),
            "trimmed": 0,
            "outbox": outbox,
            **(self._requests or Remembered()).fields(),
            "writes": [self._token],
            **({"pending": 1} if outbox else {}),
            **self._content()[0],
        }

    def updated(self, stored: Stored[V]) -> Document:
        """The update that replaces the value of `stored`."""
        return self._update(stored.version, stored.sequence, *self._content())

    def revived(self, tombstone: Document) -> Document:
        """The update that makes a new aggregate of a tombstone; version and sequence go on."""
        return self._update(tombstone["version"], tombstone["sequence"], *self._content())

    def buried(self, stored: Stored[V]) -> Document:
        """The update that leaves a tombstone."""
        gone = dict.fromkeys(("value", "live", "requests_beside", KEY, *map(index_field, self._schema.indexes)), "")
        return self._update(stored.version, stored.sequence, {"requests": []}, gone)

    def _content(self) -> tuple[Document, Document]:
        assert self._value is not None
        present, absent = index_values(self._schema.indexes, self._value)
        fields = {
            "value": to_document(self._value),
            "schema_version": self._schema.version,
            "live": 1,
            KEY: encode_scalar(self._id),
        }
        return {**fields, **present}, absent

    def _entries(self, sequence: int) -> list[str]:
        self._outbox = entries(self._id, sequence, self._events)
        self._sequence = sequence + len(self._outbox)
        return self._outbox

    def _update(self, version: int, sequence: int, present: Document, absent: Document) -> Document:
        outbox = self._entries(sequence)
        push: dict[str, Any] = {"writes": {"$each": [self._token], "$slice": -WRITES}}
        settled = {**present, "version": version + 1}
        if self._requests is not None:
            settled |= self._requests.fields()
        if outbox:
            push["outbox"] = {"$each": outbox}
            settled |= {"sequence": sequence + len(outbox), "pending": 1}
        update = {"$set": settled, "$push": push}
        return {**update, "$unset": absent} if absent else update
