"""The partitions of a version from those of its predecessor and its plan: only what the changes touch is rewritten.

Blocking and without database: runs in a thread.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.objects import ObjectStore
from services.dataset.committing.plan import Operation, Plan
from services.dataset.partitions.columns import (
    KEY,
    REVISION,
    Columns,
    columns_of,
    convert,
    join,
    kinds_of_records,
    kinds_of_table,
    table_of_records,
)
from services.dataset.partitions.manifest import Column, Manifest, PartFile, bits_for, bucket_of
from services.dataset.values import Record, decode, rows_digest


@dataclass
class _Bucket:
    """A partition that changes: the rows that stay (None: none), those that come, and the keys that are touched."""

    stays: pa.Table | None = None
    touched: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    revisions: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def add(self, operation: Operation, number: int) -> None:
        self.touched.add(operation.key)
        if operation.text is not None:
            self.keys.append(operation.key)
            self.revisions.append(f"{operation.key}/{number}")
            self.records.append(decode(operation.text))

    def kinds(self, columns: Columns) -> dict[str, int]:
        stayed = kinds_of_table(self.stays, columns) if self.stays is not None else {}
        return join((stayed, kinds_of_records(self.records)))

    def table(self, before: Columns, after: Columns) -> pa.Table:
        new = table_of_records(self.keys, self.revisions, self.records, after)
        whole = new if self.stays is None else pa.concat_tables([convert(self.stays, before, after), new])
        return whole.sort_by(KEY).combine_chunks()


class Builder:
    """Builds one version's manifest. `before` is the predecessor's, None for version 1."""

    def __init__(self, objects: ObjectStore, plan: Plan, before: Manifest | None) -> None:
        self._objects = objects
        self._plan = plan
        self._before = before
        self._files = {part.bucket: part for part in before.files} if before else {}
        self._columns = before.types if before else {}
        self._bits = bits_for(plan.records, before.bits if before else None)
        self._divided = before is None or before.bits == self._bits

    def build(self) -> Manifest:
        """Write the partitions that change, and give the manifest. Raises NotFound, DataCorrupt, ResourceExhausted."""
        buckets = self._changed()
        kinds = {number: bucket.kinds(self._columns) for number, bucket in buckets.items()}
        kept = {n: part for n, part in self._files.items() if n not in buckets} if self._divided else {}
        columns = columns_of(join([*kinds.values(), *(part.kinds for part in kept.values())]))
        if columns != self._columns:  # all files of a version have one schema
            for number in kept:
                buckets[number] = _Bucket(stays=self._read(number))
                kinds[number] = self._files[number].kinds
            kept = {}
        files = [*kept.values(), *self._write(buckets, kinds, columns)]
        return Manifest(
            self._plan.dataset, self._plan.number, sum(part.records for part in files), rows_digest(self._plan.rows),
            self._bits, tuple(Column(name, kind) for name, kind in columns.items()),
            tuple(sorted(files, key=lambda part: part.bucket)), self._plan.key_field, self._plan.label_field,
        )  # fmt: skip

    def _changed(self) -> dict[int, _Bucket]:
        """The partitions with changes, the rows that stay in them read; all of them if they are divided anew."""
        buckets: dict[int, _Bucket] = {}
        for chunk in self._plan.chunks:
            for operation in self._plan.operations(self._objects, chunk):
                number = bucket_of(operation.key, self._bits)
                buckets.setdefault(number, _Bucket()).add(operation, self._plan.number)
        if self._divided:
            for number in buckets.keys() & self._files.keys():
                buckets[number].stays = _without(self._read(number), buckets[number].touched)
            return buckets
        for number, rows in self._redivided():
            bucket = buckets.setdefault(number, _Bucket())
            rows = _without(rows, bucket.touched)
            bucket.stays = rows if bucket.stays is None else pa.concat_tables([bucket.stays, rows])
        return buckets

    def _redivided(self) -> Iterator[tuple[int, pa.Table]]:
        for old in self._files:
            table = self._read(old)
            numbers = pa.array([bucket_of(key, self._bits) for key in table.column(KEY).to_pylist()], pa.int32())
            for number in numbers.unique().to_pylist():
                yield number, table.filter(pc.equal(numbers, number))

    def _write(
        self, buckets: Mapping[int, _Bucket], kinds: Mapping[int, dict[str, int]], columns: Columns
    ) -> Iterator[PartFile]:
        for number, bucket in buckets.items():
            table = bucket.table(self._columns, columns)
            if not table.num_rows:
                continue
            ref = self._objects.put_bytes(_parquet(table))
            yield PartFile(f"part-{number:05d}.parquet", ref.digest, ref.size, table.num_rows, number, kinds[number])

    def _read(self, number: int) -> pa.Table:
        content = self._objects.get_bytes(self._files[number].digest)
        return pq.read_table(io.BytesIO(content), use_threads=False)


def _without(table: pa.Table, keys: Iterable[str]) -> pa.Table:
    gone = pc.is_in(table.column(KEY), pa.array(list(keys), pa.string()))
    return table.filter(pc.invert(gone))


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression="zstd", use_dictionary=[n for n in table.column_names if n not in (KEY, REVISION)]
    )
    return sink.getvalue()
