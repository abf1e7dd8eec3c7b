"""The far side of reading Parquet: a process of its own, since a small file can be made to unfold into any size.

Reads the file's place as a line of JSON; writes each row as a line of JSON, then `.`, or `!` and what is wrong with the
file as JSON text. What it may use is bounded by the kernel.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.objects import ObjectStore
from services.dataset.ingest.chunks import ChunkFile
from services.dataset.ingest.rows import BadFile
from services.dataset.values import MAX_BYTES

END, WRONG = b".", b"!"  # no line of JSON begins so
EXHAUSTED = 3  # the exit code where memory does not suffice; a library may end the process for it too (SIGABRT)
MAX_LINE = 2 * MAX_BYTES  # of a row; written as JSON here it may be longer than in its canonical form
_MEMORY = 2 << 30  # bytes of address space
_ROWS, _BYTES = 2_000, 64 << 20  # unfolded at once


def main() -> None:
    """Write the rows of one file."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ends with whoever reads
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    given = json.loads(sys.stdin.buffer.readline())
    file = ChunkFile(ObjectStore(Path(given["root"])), given["digests"], given["sizes"])
    out = sys.stdout.buffer
    try:
        for line in _lines(file, given["key_field"]):
            out.write(line + b"\n")
        out.write(END + b"\n")
    except MemoryError:
        sys.exit(EXHAUSTED)
    except BadFile as error:
        out.write(WRONG + json.dumps(error.message).encode() + b"\n")
    out.flush()


def _lines(file: ChunkFile, key_field: str) -> Iterator[bytes]:
    number = 0
    try:
        reader = pq.ParquetFile(pa.PythonFile(file.buffered(), mode="r"))
        _check(reader.schema_arrow, key_field)
        plain = all(_is_json(field.type) for field in reader.schema_arrow)
        for batch in reader.iter_batches(batch_size=_batch_rows(reader.metadata), use_threads=False):
            for record in batch.to_pylist(maps_as_pydicts="strict"):
                number += 1
                found = record if plain else {name: _plain(value, number) for name, value in record.items()}
                line = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()
                if len(line) > MAX_LINE:
                    raise BadFile(f"row {number} has more than {MAX_BYTES} bytes: keep large things as files.")
                yield line
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        place = f"after row {number}" if number else "at its beginning or end"
        raise BadFile(f"The Parquet file is damaged or not Parquet, {place}: {str(error)[:300]}") from error
    except RecursionError as error:
        raise BadFile("The Parquet file is nested too deeply.") from error
    except (ValueError, KeyError, OverflowError) as error:  # no UTF-8, a map's key twice, nanoseconds, the year 10,000
        what = f"a value cannot be kept in a record: {str(error).partition('. ')[0][:300]}"
        raise BadFile(f"After row {number}, within {_ROWS} rows, {what}. Write that column as text.") from error


def _batch_rows(metadata: pq.FileMetaData) -> int:
    """How many rows to unfold at once, by the size that the file says that they have."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    average = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(_ROWS, _BYTES // max(1, average)))


def _check(schema: pa.Schema, key_field: str) -> None:
    names = schema.names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BadFile(f"The column '{repeated[0]}' is there twice: rename one.")
    if key_field not in names:
        raise BadFile(f"There is no key column '{key_field}': the columns are {', '.join(names)[:1000]}.")
    for field in schema:
        if _holds(field.type, lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise BadFile(f"The column '{field.name}' is binary, which records cannot hold: leave it out.")


def _holds(kind: pa.DataType, is_bad: Callable[[pa.DataType], bool]) -> bool:
    if is_bad(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_holds(kind.field(index).type, is_bad) for index in range(kind.num_fields))


def _is_json(kind: pa.DataType) -> bool:
    """Whether Arrow gives the values as JSON has them."""
    types = pa.types
    if types.is_struct(kind) or types.is_list(kind) or types.is_large_list(kind):
        return all(_is_json(kind.field(index).type) for index in range(kind.num_fields))
    return bool(
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)
        or types.is_string(kind) or types.is_large_string(kind)
    )  # fmt: skip


def _plain(value: Any, row: int) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item, row) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, row) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise BadFile(f"row {row}: a value of type {type(value).__name__} cannot be kept in a record.")


if __name__ == "__main__":
    main()
