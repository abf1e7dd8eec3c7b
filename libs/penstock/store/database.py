"""One service's database: how it is connected, and what a lost connection means.

Every write waits for the journal of a majority. The driver's own retries are off: after an unknown outcome only the
caller can tell, by reading again, whether its write is there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import MongoClient
from pymongo.collection import Collection as PyMongoCollection
from pymongo.errors import (
    AutoReconnect,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)

from penstock.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from penstock.store.codec import Document

T = TypeVar("T")
Collection: TypeAlias = AsyncIOMotorCollection[Document]

_OPTIONS: dict[str, Any] = {
    "w": "majority",
    "journal": True,
    "retryWrites": False,
    "retryReads": True,
    "serverSelectionTimeoutMS": 2_000,
    "connectTimeoutMS": 3_000,
    "socketTimeoutMS": 30_000,
    "maxPoolSize": 32,
    "tz_aware": True,
    "appname": "penstock",
}
# The outcome of these is unknown, or the server cannot answer now; an OperationFailure is looked at by its code.
_TRANSIENT = (ConnectionFailure, WriteConcernError, ExecutionTimeout)
_TRANSIENT_CODES = frozenset({6, 7, 89, 91, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436})
_OUT_OF_DISK_CODES = frozenset({14031})
_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0, 1.5)  # seconds between attempts
_PATIENCE = 8.0  # seconds after which there is no further attempt


async def write(operation: Callable[[], Awaitable[T]]) -> T:
    """Do one write. Every write of the store passes here, so that tests can fail the k-th one."""
    return await operation()


async def attempt(operation: Callable[[bool], Awaitable[T]]) -> T:
    """Call `operation(again)` until the database answers, at most 7 times, and for about 10 s.

    `again` says that an earlier call may have been carried out. Raises Unavailable, ResourceExhausted (disk full) or
    InvalidArgument (document too large); the driver's other errors, such as duplicate keys, pass through.
    """
    again, started = False, time.monotonic()
    for delay in (*_DELAYS, None):
        try:
            return await operation(again)
        except DocumentTooLarge as error:
            raise InvalidArgument("This is too large to be stored as one document (16 MiB).") from error
        except (AutoReconnect, OperationFailure, *_TRANSIENT) as error:
            _check_transient(error)
            if delay is None or time.monotonic() - started > _PATIENCE:
                raise Unavailable("The database does not answer; try again in a moment.") from error
            again = again or not isinstance(error, ServerSelectionTimeoutError)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


def check_given(uri: str) -> None:
    """Raise FailedPrecondition unless a database answers at the URI that PENSTOCK_MONGODB_URI gives."""
    try:
        with MongoClient[Document](uri, serverSelectionTimeoutMS=_OPTIONS["connectTimeoutMS"]) as client:
            client.admin.command("ping")
    except (PyMongoError, ValueError) as error:
        reason = str(error).split(",", 1)[0][:200]
        raise FailedPrecondition(
            f"No MongoDB answers at what PENSTOCK_MONGODB_URI says ({reason}): start it, or unset the variable.",
            field="PENSTOCK_MONGODB_URI",
        ) from None


def _check_transient(error: Exception) -> None:
    """Raise what another attempt cannot mend."""
    if not isinstance(error, OperationFailure) or isinstance(error, _TRANSIENT):
        return
    if error.code in _OUT_OF_DISK_CODES or "disk is full" in str(error):
        raise ResourceExhausted("The database's disk is full: free some space, then try again.") from error
    if error.code not in _TRANSIENT_CODES and not error.has_error_label("RetryableWriteError"):
        raise error


class Database:
    """A database of one service. Make it in the event loop that uses it."""

    def __init__(self, uri: str, name: str) -> None:
        self.name = name
        self._uri = uri
        self._client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(uri, **_OPTIONS)
        self._database: AsyncIOMotorDatabase[Document] = self._client[name]
        self._threaded: MongoClient[Document] | None = None

    @classmethod
    def connect(cls, uri: str, name: str) -> Database:
        """Connect lazily to the database `name` (convention: `penstock_<service>`) of the server at `uri`."""
        return cls(uri, name)

    async def ping(self) -> None:
        """Raise Unavailable unless the server answers."""
        await attempt(lambda _: self._client.admin.command("ping"))

    async def close(self) -> None:
        """Close all connections."""
        self._client.close()
        if self._threaded is not None:
            self._threaded.close()

    def collection(self, name: str) -> Collection:
        """The asynchronous driver's collection; for the store's own modules only."""
        return self._database[name]

    def threaded_collection(self, name: str) -> PyMongoCollection[Document]:
        """The synchronous driver's collection, for big reads in a thread: 2.5 times as fast."""
        if self._threaded is None:
            self._threaded = MongoClient(self._uri, **_OPTIONS)
        return self._threaded[self.name][name]

    async def drop(self) -> None:
        """Delete the whole database."""
        await attempt(lambda _: write(lambda: self._client.drop_database(self.name)))
