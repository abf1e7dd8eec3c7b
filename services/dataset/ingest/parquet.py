"""Parquet files, read by row groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from services.dataset.ingest.chunks import ChunkFile
from services.dataset.ingest.rows import BadFile, Row, make_row
from services.dataset.values import Cleaner

_BATCH = 2000


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
        number = 0
        try:
            reader = pq.ParquetFile(pa.PythonFile(self._file.buffered(), mode="r"))
            schema = reader.schema_arrow
            _check(schema, self._key_field)
            plain = all(_is_json(field.type) for field in schema)
            for batch in reader.iter_batches(batch_size=_BATCH):
                for record in batch.to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    found = record if plain else {name: _plain(value, number) for name, value in record.items()}
                    yield make_row(number, found, self._key_field, self.cleaner, f"row {number}")
        except (pa.ArrowException, OSError) as error:
            place = f"after row {number}" if number else "at its beginning or end"
            raise BadFile(f"The Parquet file is damaged or not Parquet, {place}: {str(error)[:300]}") from error


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
