"""Partitions as files on this machine, for DuckDB: fetched when first needed, the least used removed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from penstock.objects import ObjectStore

MAX_BYTES = 4 << 30


class PartitionFiles:
    """A cache of objects in a folder; calls block."""

    def __init__(self, objects: ObjectStore, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._objects = objects
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def paths(self, digests: Sequence[str]) -> list[str]:
        """The files that hold these objects. Raises NotFound, DataCorrupt."""
        found = []
        fetched = False
        for digest in digests:
            path = self._folder / f"{digest.removeprefix('sha256:')}.parquet"
            with self._lock:
                if not path.exists():
                    self._objects.fetch(digest, path)
                    fetched = True
            found.append(str(path))
        if fetched:
            self._trim(keep=set(found))
        return found

    def _trim(self, keep: set[str]) -> None:
        with self._lock:
            entries = [(entry.stat(), entry.path) for entry in os.scandir(self._folder) if entry.is_file()]
            size = sum(stat.st_size for stat, _ in entries)
            for stat, path in sorted(entries, key=lambda entry: entry[0].st_atime):
                if size <= self._max_bytes:
                    return
                if path not in keep:
                    Path(path).unlink(missing_ok=True)
                    size -= stat.st_size
