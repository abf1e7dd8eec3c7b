"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from services.dataset.ingest.chunks import ChunkFile
from services.dataset.ingest.rows import BadFile, Row, make_row
from services.dataset.values import MAX_BYTES, Cleaner

_BOM = b"\xef\xbb\xbf"


class JsonLines:
    """Reads JSON Lines; empty lines are passed over. NaN counts as missing, integers keep 64 bits."""

    def __init__(self, file: ChunkFile, key_field: str) -> None:
        self.cleaner = Cleaner()
        self._file = file
        self._key_field = key_field

    def where(self, place: int) -> str:
        """The line."""
        return f"line {place}"

    def rows(self) -> Iterator[Row]:
        """The rows. Raises BadFile."""
        lines = self._file.buffered()
        number = 0
        while line := lines.readline(MAX_BYTES + 2):
            number += 1
            if number == 1:
                line = line.removeprefix(_BOM)
            if len(line) > MAX_BYTES:
                raise BadFile(f"line {number} is longer than {MAX_BYTES} bytes: is this a JSON Lines file?")
            if line.isspace():
                continue
            yield make_row(number, _parse(line, number), self._key_field, self.cleaner, f"line {number}")


class _Twice(Exception):
    """The name of a field that an object has twice."""


def _object(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """As JSON objects are read, but never one of two values silently."""
    found = dict(fields)
    if len(found) < len(fields):
        names = [name for name, _ in fields]
        raise _Twice(next(name for name in names if names.count(name) > 1)[:80])
    return found


_DECODE = json.JSONDecoder(object_pairs_hook=_object).decode  # made once: `json.loads` with a hook makes one a call


def _parse(line: bytes, number: int) -> dict[str, Any]:
    try:
        # Without its end: with it, what is cut off would break in a line 2.
        value = _DECODE(line.rstrip(b"\r\n").decode())
    except UnicodeDecodeError as error:
        raise BadFile(f"line {number} is not UTF-8 (byte {error.start + 1}): save the file as UTF-8.") from error
    except _Twice as error:
        raise BadFile(f"line {number}: the field '{error}' is there twice: which one holds?") from error
    except json.JSONDecodeError as error:
        raise BadFile(f"line {number}, column {error.colno}: not valid JSON ({error.msg}).") from error
    except RecursionError as error:
        raise BadFile(f"line {number} is nested too deeply.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise BadFile(f"line {number}: {error}.") from error
    if not isinstance(value, dict):
        raise BadFile(f"line {number} holds a {type(value).__name__}: each line must be a JSON object.")
    return value
