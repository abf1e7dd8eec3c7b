"""What nx-27017 does per document or by scanning, done per request and by index (docs/adr/0007).

It is a stand-in for MongoDB; this is what MongoDB does, and changes no answer that the store can ask for.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]
Handle: TypeAlias = Callable[[Any, Message], tuple[int, Message]]
Where: TypeAlias = tuple[str, list[Any], list[Any]]

_WRITES = frozenset({"insert", "update", "delete"})
# As it asks for `$in`, which looks into arrays too, and so into every document.
_IN = re.compile(
    r"(?<!NOT )EXISTS \(SELECT 1 FROM json_each\(data, ('\$\.\w+')\) AS json_each"
    r" WHERE json_each\.value IN (\([?, ]+\))\)"
)
_EQUAL = re.compile(r"json_extract\(data, '\$\.\w+'\) = \?")


def apply() -> None:
    """Patch nx-27017 in this process, before it serves."""
    from neosqlite.collection.query_helper import QueryHelper  # type: ignore[import-untyped]
    from nx_27017.handler import NeoSQLiteHandler  # type: ignore[import-untyped]

    NeoSQLiteHandler._apply_write_concern = lambda *_: None  # all write alike, and `journalled` syncs
    NeoSQLiteHandler.handle_insert = journalled(NeoSQLiteHandler.handle_insert)
    NeoSQLiteHandler.handle_command = journalled(NeoSQLiteHandler.handle_command)
    QueryHelper._build_simple_where_clause = indexed(QueryHelper._build_simple_where_clause)


def journalled(handle: Handle) -> Handle:
    """`handle`, with what a request writes in one transaction, and synced if its write concern asks for the journal.

    A database is one SQLite file in WAL mode with `synchronous=NORMAL`: its log is written in order and synced whole
    here, and SQLite itself syncs log and file around each checkpoint. So what is answered is durable, and all before.
    nx-27017 by itself commits and syncs once a document, and nobody else is answered meanwhile. What names its
    databases elsewhere (`bulkWrite` over several, transactions) is not covered: the store sends neither.
    """

    def acknowledge(handler: Any, message: Message) -> tuple[int, Message]:
        command: Message = next((section for kind, section in message["sections"] if kind == "body"), {})
        database, concern = command.get("$db", "test"), command.get("writeConcern")
        if _WRITES.isdisjoint(command):
            answer = handle(handler, message)
        else:
            with handler._lock_for(database), _transaction(handler.get_database(database).db) as failed:
                answer = handle(handler, message)
                failed += answer[1].get("writeErrors", ())
        if isinstance(concern, dict) and concern.get("j"):
            _sync(Path(handler._db_file(database)))
        return answer

    return acknowledge


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[list[Message]]:
    """One transaction for the block, which adds what failed: a document may, and the others stay.

    Raises sqlite3.OperationalError if SQLite gave all of it up, as it does when the disk is full.
    """
    failed: list[Message] = []
    connection.execute("BEGIN")
    try:
        yield failed
        if not connection.in_transaction:
            raise sqlite3.OperationalError(failed[-1]["errmsg"] if failed else "nothing of it was written")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _sync(database: Path) -> None:
    try:
        file = os.open(f"{database}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return  # the database was dropped, or closed: SQLite syncs it all before it removes the log
    try:
        os.fdatasync(file)
    finally:
        os.close(file)


def indexed(build: Callable[..., Where | None]) -> Callable[..., Where | None]:
    """`build`, a query's WHERE, with `$in` answered by the field's index: for fields that never hold an array.

    Equalities beside it are made residual (by a `+`, which SQLite documents for this): it has no statistics, and would
    rather walk all rows with `to = 2^62` than look up fifty keys.
    """

    def where(*arguments: Any, **options: Any) -> Where | None:
        built = build(*arguments, **options)
        if built is None:
            return None
        clause, replaced = _IN.subn(r"json_extract(data, \1) IN \2", built[0])
        return (_EQUAL.sub(r"+\g<0>", clause) if replaced else clause), *built[1:]

    return where
