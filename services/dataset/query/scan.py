"""Filtered and sorted pages: DuckDB over the partitions there are, newer plans' and the draft's changes on top.

A reader never waits for partitions: what newer plans changed is filtered and sorted here, hidden from DuckDB by its
keys, and merged with what DuckDB finds.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cmp_to_key
from typing import Any

import duckdb
import pyarrow as pa

from penstock.objects import ObjectStore
from services.dataset.committing.plan import get_plan
from services.dataset.filters import Expression, bind, holds, parse
from services.dataset.filters.grammar import unknown_column
from services.dataset.filters.sql import Compiler
from services.dataset.layers import Change
from services.dataset.partitions.columns import ColumnType
from services.dataset.partitions.manifest import Manifest
from services.dataset.partitions.writer import Manifests
from services.dataset.query.files import PartitionFiles
from services.dataset.query.order import Order, Position, beyond, position, sorting
from services.dataset.query.view import Found, View, found, of_change
from services.dataset.repository import Repository, revision_id
from services.dataset.values import Record, decode

_STEP = 20  # versions looked at together for the newest one with partitions


@dataclass(frozen=True)
class Query:
    """What is asked for: `after` is where the page before ended."""

    filter: str
    order: Order
    limit: int
    after: Position | None = None


@dataclass(frozen=True)
class Tail:
    """What versions newer than the partitions made of records: (text or None where removed, revision number)."""

    manifest: Manifest | None
    changes: Mapping[str, tuple[str | None, int]]
    version: int


@dataclass
class _Bound:
    """A query over the columns there are."""

    expression: Expression | None
    order: Order
    after: Position | None
    limit: int
    kind: ColumnType | None
    columns: dict[str, tuple[str, ColumnType]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Hit:
    at: Position
    found: Found | str  # a draft's record, or the id of a stored revision


class Scanner:
    """Runs queries."""

    def __init__(
        self, repository: Repository, objects: ObjectStore, manifests: Manifests, files: PartitionFiles
    ) -> None:
        self._repository = repository
        self._objects = objects
        self._manifests = manifests
        self._files = files
        self._tails: dict[tuple[str, int], Tail] = {}
        self._opening = threading.Lock()
        self._duckdb: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        """Close DuckDB, if it was needed."""
        if self._duckdb is not None:
            self._duckdb.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the one database of this process."""
        with self._opening:
            if self._duckdb is None:
                self._duckdb = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "1GB"})
            return self._duckdb.cursor()

    async def run(self, view: View, query: Query) -> list[tuple[Position, Found]]:
        """The records of a page, one more than the limit if there are more. Raises InvalidArgument."""
        expression = parse(query.filter)
        tail = await self._tail(view)
        hits = await asyncio.to_thread(self._search, view, tail, expression, query)
        ids = [hit.found for hit in hits if isinstance(hit.found, str)]
        stored = await self._repository.by_ids(view.dataset.name, ids)
        head = view.dataset.head
        return [(hit.at, found(stored[hit.found], head) if isinstance(hit.found, str) else hit.found) for hit in hits]

    async def _tail(self, view: View) -> Tail:
        """The newest partitions at or before the view's version, and what changed since."""
        number, plans = view.version, []
        manifest = None
        while number > 0 and manifest is None:
            names = [f"{view.dataset.name}/versions/{n}" for n in range(number, max(number - _STEP, 0), -1)]
            versions = await self._repository.versions.get_many(names)
            for name in names:
                version = versions[name].value
                if version.manifest is not None:
                    manifest = await self._manifests.load(version.manifest)
                    break
                plans.append(version.plan)
                number = version.number - 1
        key = (view.dataset.name, view.version)
        known = self._tails.get(key)
        if known is not None and known.version == (manifest.version if manifest else 0):
            return known
        changes = await asyncio.to_thread(self._changes, plans)
        tail = Tail(manifest, changes, manifest.version if manifest else 0)
        while len(self._tails) >= 16:
            self._tails.pop(next(iter(self._tails)))
        self._tails[key] = tail
        return tail

    def _changes(self, plans: list[str]) -> dict[str, tuple[str | None, int]]:
        changes: dict[str, tuple[str | None, int]] = {}
        for digest in reversed(plans):
            plan = get_plan(self._objects, digest)
            for chunk in plan.chunks:
                for operation in plan.operations(self._objects, chunk):
                    changes[operation.key] = (operation.text, plan.number)
        return changes

    def _search(self, view: View, tail: Tail, expression: Expression | None, query: Query) -> list[_Hit]:
        """Blocking: the first `limit` + 1 hits."""
        upper = _decoded(view, tail)
        bound = _bind(tail.manifest, upper, expression, query)
        if bound is None:
            return []
        hidden = view.overlay.keys() | tail.changes.keys()
        hits = list(_matching(upper, bound))
        hits += self._stored(tail.manifest, hidden, bound)
        return heapq.nsmallest(query.limit + 1, hits, key=_sort_key(bound.order.descending))

    def _stored(self, manifest: Manifest | None, hidden: Collection[str], bound: _Bound) -> list[_Hit]:
        if manifest is None or not manifest.files:
            return []
        compiler = Compiler(bound.columns)
        column = bound.columns.get(bound.order.field)
        conditions = []
        if bound.expression is not None:
            conditions.append(compiler.predicate(bound.expression))
        if bound.after is not None:
            conditions.append(beyond(compiler, bound.order, column, "c0", bound.after))
        if hidden:
            conditions.append("c0 NOT IN (SELECT key FROM hidden)")
        files = compiler.parameter(self._files.paths([part.digest for part in manifest.files]))
        names = ", ".join(f"c{index}" for index in range(len(manifest.columns) + 2))
        value = column[0] if column else "NULL"
        statement = (
            f"SELECT c0, c1, {value} FROM read_parquet({files}) AS rows({names}) "
            f"WHERE {' AND '.join(conditions) or 'true'} "
            f"ORDER BY {sorting(bound.order, column, 'c0').clause} LIMIT {bound.limit + 1}"
        )
        rows = self._execute(statement, compiler.parameters, hidden)
        return [_hit(row, bound.order, column[1] if column else None) for row in rows]

    def _execute(self, statement: str, parameters: dict[str, Any], hidden: Collection[str]) -> list[tuple[Any, ...]]:
        cursor = self._cursor()
        try:
            if hidden:
                cursor.register("hidden", pa.table({"key": pa.array(list(hidden), pa.string())}))
            rows: list[tuple[Any, ...]] = cursor.execute(statement, parameters).fetchall()
            return rows
        finally:
            cursor.close()


def _decoded(view: View, tail: Tail) -> list[tuple[str, Record, Found | str]]:
    """The records that lie over the partitions."""
    upper: list[tuple[str, Record, Found | str]] = []
    for key, (text, number) in tail.changes.items():
        if text is not None and key not in view.overlay:
            upper.append((key, decode(text), revision_id(key, number)))
    for key, change in view.overlay.items():
        if _there(change):
            upper.append((key, decode(change.text or ""), of_change(key, change)))
    return upper


def _sort_key(descending: bool) -> Callable[[_Hit], Any]:
    def compare(one: _Hit, two: _Hit) -> int:
        return -1 if one.at.before(two.at, descending) else 1

    return cmp_to_key(compare)


def _there(change: Change) -> bool:
    return change.text is not None


def _bind(
    manifest: Manifest | None, upper: list[tuple[str, Record, Found | str]], expression: Expression | None, query: Query
) -> _Bound | None:
    """The query over the columns there are; None if there are no records. Raises InvalidArgument."""
    types = manifest.types if manifest else {}
    columns = types.keys() | {name for _, record, _ in upper for name in record}
    if not columns:
        return None
    if query.order.field and query.order.field not in columns:
        raise unknown_column(query.order.field, columns, "order_by")
    known = {name: (f"c{index}", kind) for index, (name, kind) in enumerate(types.items(), 2)}
    bound = bind(expression, columns) if expression is not None else None
    return _Bound(bound, query.order, query.after, query.limit, types.get(query.order.field), known)


def _matching(upper: Iterable[tuple[str, Record, Found | str]], bound: _Bound) -> Iterable[_Hit]:
    for key, record, which in upper:
        if bound.expression is None or holds(bound.expression, record):
            at = position(record, key, bound.order, bound.kind)
            if bound.after is None or bound.after.before(at, bound.order.descending):
                yield _Hit(at, which)


def _hit(row: tuple[Any, ...], order: Order, kind: ColumnType | None) -> _Hit:
    key, revision, value = row
    if kind is ColumnType.JSON and value is not None:
        value = decode(value)
    record = {} if value is None else {order.field: value}
    return _Hit(position(record, key, order, kind), revision_id(key, int(revision.rpartition("/")[2])))
