"""A whole file into staged parts: validated, its keys unique, in pieces small enough to commit one by one."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.objects import ObjectStore
from services.dataset.imports import Format, Import
from services.dataset.ingest.chunks import ChunkFile
from services.dataset.ingest.csv import Csv
from services.dataset.ingest.jsonl import JsonLines
from services.dataset.ingest.parquet import Parquet
from services.dataset.ingest.rows import BadFile, Reader

PART_ROWS = 5_000
PART_BYTES = 16 * 1024 * 1024
_READERS: dict[Format, Callable[[ChunkFile, str], Reader]] = {
    Format.JSONL: JsonLines,
    Format.CSV: Csv,
    Format.PARQUET: Parquet,
}


@dataclass(frozen=True)
class Part:
    """Staged records: `digest` of the Parquet object with the columns key and data, and how many."""

    digest: str
    records: int


class Staging:
    """Parses and validates one import. Blocking: call `next_part` in a thread until it gives None.

    Raises BadFile naming line and field. `missing` counts the NaN values so far.
    """

    def __init__(self, objects: ObjectStore, spec: Import) -> None:
        self._objects = objects
        self._spec = spec
        self._file = ChunkFile(objects, spec.chunks, spec.chunk_sizes)
        self._reader: Reader = _READERS[spec.format](self._file, spec.key_field)
        self._seen: dict[str, int] = {}
        self._labelled = not spec.label_field
        self._parts: Iterator[Part] | None = None

    @property
    def missing(self) -> int:
        """NaN values so far, which are kept as missing fields."""
        return self._reader.cleaner.missing

    def next_part(self) -> Part | None:
        """The next staged part, durable; None after the last, when the file as a whole is known to be good."""
        if self._parts is None:
            self._check_digest()
            self._parts = self._stage()
        return next(self._parts, None)

    def _stage(self) -> Iterator[Part]:
        keys: list[str] = []
        texts: list[str] = []
        size = 0
        for row in self._reader.rows():
            first = self._seen.setdefault(row.key, row.place)
            if first != row.place:
                raise BadFile(
                    f"The key '{row.key[:100]}' is there twice: {self._reader.where(first)} and "
                    f"{self._reader.where(row.place)}. Keys must be unique within a file."
                )
            keys.append(row.key)
            texts.append(row.text)
            size += len(row.text)
            if not self._labelled and f'"{self._spec.label_field}":' in row.text:
                self._labelled = True
            if len(keys) >= PART_ROWS or size >= PART_BYTES:
                yield self._put(keys, texts)
                keys, texts, size = [], [], 0
        if keys:
            yield self._put(keys, texts)
        if not self._seen:
            raise BadFile("The file holds no records.")
        if not self._labelled:
            raise BadFile(f"No record has the label field '{self._spec.label_field}'.")

    def _put(self, keys: list[str], texts: list[str]) -> Part:
        return Part(put_rows(self._objects, keys, texts), len(keys))

    def _check_digest(self) -> None:
        if not self._spec.digest:
            return
        digest = hashlib.sha256()
        file = self._file.buffered()
        while block := file.read(1 << 20):
            digest.update(block)
        if (found := f"sha256:{digest.hexdigest()}") != self._spec.digest:
            raise BadFile(f"The bytes that arrived have the digest {found}, not {self._spec.digest}: import it again.")


def put_rows(
    objects: ObjectStore, keys: Sequence[str], texts: Sequence[str | None], edits: Sequence[int] | None = None
) -> str:
    """Store rows (text None: the record is removed); `edits` are places in a list of who did it. Gives the digest."""
    columns = {"key": pa.array(keys, pa.string()), "data": pa.array(texts, pa.large_string())}
    if edits is not None:
        columns["edit"] = pa.array(edits, pa.int32())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", use_dictionary=False, write_statistics=False)
    return objects.put_bytes(sink.getvalue()).digest


@dataclass(frozen=True)
class Rows:
    """Stored rows as lists of one length; see put_rows."""

    keys: list[str]
    texts: list[str | None]
    edits: list[int]


def read_part(objects: ObjectStore, digest: str) -> Rows:
    """The rows of a part. Raises NotFound, DataCorrupt."""
    table = pq.read_table(io.BytesIO(objects.get_bytes(digest)), use_threads=False)
    edits = table.column("edit").to_pylist() if "edit" in table.column_names else [0] * table.num_rows
    return Rows(table.column("key").to_pylist(), table.column("data").to_pylist(), edits)
