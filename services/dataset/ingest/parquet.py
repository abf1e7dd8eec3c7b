"""Parquet files: read by a process of its own, whose memory is bounded (see `parquet_worker`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from penstock.errors import Unavailable
from services.dataset.ingest import parquet_worker
from services.dataset.ingest.chunks import ChunkFile
from services.dataset.ingest.parquet_worker import END, EXHAUSTED, WRONG
from services.dataset.ingest.rows import BadFile, Row, make_row
from services.dataset.values import Cleaner

# Arrow's own allocator takes much more address space than it uses.
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "PYTHONDONTWRITEBYTECODE": "1"}


class Parquet:
    """Reads Parquet. Dates and times become ISO 8601 text, decimals text; binary columns are refused."""

    def __init__(self, file: ChunkFile, key_field: str) -> None:
        self.cleaner = Cleaner()
        self._file = file
        self._key_field = key_field

    def where(self, place: int) -> str:
        """The row."""
        return f"row {place}"

    def rows(self) -> Iterator[Row]:
        """The rows. Raises BadFile."""
        for number, line in enumerate(self._lines(), 1):
            yield make_row(number, json.loads(line), self._key_field, self.cleaner, f"row {number}")

    def _lines(self) -> Iterator[bytes]:
        """What the process writes of the rows; it is gone at the end, however that comes."""
        number = 0
        process = subprocess.Popen(
            [sys.executable, "-I", parquet_worker.__file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**_ENVIRONMENT, "PATH": os.defpath},
        )  # fmt: skip
        with process:
            try:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(json.dumps({**self._file.place(), "key_field": self._key_field}).encode() + b"\n")
                process.stdin.flush()
                for line in process.stdout:
                    if line.startswith(WRONG):
                        raise BadFile(json.loads(line[1:]))
                    if line.startswith(END):
                        return
                    number += 1
                    yield line
                code = process.wait()
            finally:
                process.kill()
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            raise Unavailable("The process that reads the Parquet file was ended; it is started again.")
        if code not in (EXHAUSTED, -signal.SIGABRT, -signal.SIGSEGV):
            raise RuntimeError(f"the process that reads Parquet ended with {code}; it has written why to the log")
        raise BadFile(
            f"The Parquet file cannot be read after row {number}: it unfolds to more than the memory there is for it. "
            "Write it with smaller row groups, and no value of many megabytes."
        )
