"""The manifest of a version: its Parquet files, what is in them, and nothing that depends on who wrote them when."""

from __future__ import annotations

import json
from dataclasses import dataclass

import xxhash

from penstock.objects import ObjectStore
from penstock.store.converter import from_document, to_document
from services.dataset.partitions.columns import Columns, ColumnType

TARGET_ROWS = 8192
GROWN = 4  # a partition of so many times the target is too large: then all are divided anew


@dataclass(frozen=True)
class PartFile:
    """One partition: rows whose key hash ends in `bucket`. `kinds` are masks of the kinds of values per column."""

    path: str
    digest: str
    size: int
    records: int
    bucket: int
    kinds: dict[str, int]


@dataclass(frozen=True)
class Column:
    """A column of all files but for key and revision."""

    name: str
    type: ColumnType


@dataclass(frozen=True)
class Manifest:
    """What a version is as Parquet: 2 ** `bits` partitions at most, those without rows left out."""

    dataset: str
    version: int
    records: int
    rows_digest: str
    bits: int
    columns: tuple[Column, ...]
    files: tuple[PartFile, ...]
    key_field: str = ""
    label_field: str = ""

    @property
    def types(self) -> Columns:
        """The type of each column, in the order of the files' schema."""
        return {column.name: column.type for column in self.columns}

    @property
    def json_columns(self) -> tuple[str, ...]:
        """The columns that hold JSON text."""
        return tuple(column.name for column in self.columns if column.type is ColumnType.JSON)


def bucket_of(key: str, bits: int) -> int:
    """The partition of a key: the low bits of the xxh3-64 of its UTF-8."""
    return xxhash.xxh3_64_intdigest(key.encode()) & ((1 << bits) - 1)


def bits_for(records: int, before: int | None) -> int:
    """How many bits divide so many records; those from before, unless the partitions have grown too large."""
    if before is not None and records <= GROWN * TARGET_ROWS << before:
        return before
    return max(0, (records - 1) // TARGET_ROWS).bit_length()


def put_manifest(objects: ObjectStore, manifest: Manifest) -> str:
    """Store a manifest; blocks. The same one always has the same digest."""
    body = {**to_document(manifest), "json_columns": list(manifest.json_columns)}
    return objects.put_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest


def get_manifest(objects: ObjectStore, digest: str) -> Manifest:
    """The manifest under a digest; blocks. Raises NotFound, DataCorrupt."""
    return from_document(json.loads(objects.get_bytes(digest)), Manifest)
