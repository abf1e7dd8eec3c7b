"""An uploaded file, read from the chunks it is kept in, without ever being on this disk as one."""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from penstock.objects import ObjectStore


class ChunkFile(io.RawIOBase):
    """A read-only, seekable file made of objects; one chunk at a time is in memory, its digest checked."""

    def __init__(self, objects: ObjectStore, digests: Sequence[str], sizes: Sequence[int]) -> None:
        super().__init__()
        self._objects = objects
        self._digests = digests
        self._sizes = sizes
        self._ends = list(accumulate(sizes))
        self._at = 0
        self._loaded = -1
        self._chunk = b""

    @property
    def length(self) -> int:
        """The size of the file in bytes."""
        return self._ends[-1] if self._ends else 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.length}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read up to the end of the current chunk."""
        if self._at >= self.length:
            return 0
        index = bisect.bisect_right(self._ends, self._at)
        if index != self._loaded:
            self._chunk = self._objects.get_bytes(self._digests[index])
            self._loaded = index
        begin = self._at - (self._ends[index - 1] if index else 0)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._chunk) - begin)
        view[:count] = self._chunk[begin : begin + count]
        self._at += count
        return count

    def reopened(self) -> ChunkFile:
        """The same file, from its beginning: wrappers close what they wrap."""
        return ChunkFile(self._objects, self._digests, self._sizes)

    def place(self) -> dict[str, Any]:
        """Where it lies, as JSON, for another process."""
        return {"root": str(self._objects.root), "digests": list(self._digests), "sizes": list(self._sizes)}

    def buffered(self) -> io.BufferedReader:
        """The file from its beginning, for reading by line."""
        return io.BufferedReader(self.reopened(), 1 << 20)
