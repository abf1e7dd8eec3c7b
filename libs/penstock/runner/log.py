"""A job's log: one file that can be read while it grows, with a limit on its size and the last lines at hand."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

TAIL_BYTES = 32768
TAIL_LINES = 20


class Log:
    """What the command printed (stdout and stderr, in the order of arrival) and the platform's own notes."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size
        self._tail = bytearray()
        self._full = False
        # A thread that reports metrics may have a last word while the file is being closed.
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Append what the command printed; beyond the limit it is dropped, after one note that says so."""
        self._tail += data
        del self._tail[:-TAIL_BYTES]
        room = max(0, self._limit - self._size)
        self._append(data[:room])
        if len(data) > room and not self._full:
            self._full = True
            self._append(_note(f"the log has reached its limit of {self._limit} bytes; what follows is not kept"))

    def note(self, text: str) -> None:
        """Append a line of the platform's own; it is kept beyond the limit too."""
        self._append(_note(text))

    def tail(self, lines: int = TAIL_LINES) -> tuple[str, ...]:
        """The last lines that the command printed, those beyond the limit too; each at most 1,000 characters."""
        text = self._tail.decode("utf-8", "replace")
        return tuple(line[:1000] for line in text.splitlines()[-lines:])

    def close(self) -> None:
        """Close the file; it stays."""
        with self._lock:
            os.close(self._file)
            self._file = -1

    def _append(self, data: bytes) -> None:
        # A full disk must not end the command that prints: the log then lacks something, the result does not.
        with self._lock, contextlib.suppress(OSError):
            while data and self._file >= 0:
                written = os.write(self._file, data)
                self._size += written
                data = data[written:]


def _note(text: str) -> bytes:
    return f"[penstock] {text}\n".encode("utf-8", "replace")
