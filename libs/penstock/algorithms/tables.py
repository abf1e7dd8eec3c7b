"""Reads a dataset as a job sees it: Parquet partitions with a column per field, and `input.json` beside them.

Fields are decoded by what they hold, the same way for training and evaluation: numbers and booleans (missing is NaN),
lists of numbers of one shape (images, embeddings), text (missing is ""). Whatever else there is
counts as unusable, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.algorithms.columns import Column, NumberColumn, from_arrow, from_json
from penstock.errors import InvalidArgument

KEY = "_key"
REVISION = "_revision"


@dataclass(frozen=True)
class InputCard:
    """`input.json`: which dataset version this is, its key and label fields, and which columns hold JSON text."""

    dataset: str = ""
    version: str = ""
    key: str = ""
    label: str = ""
    json_columns: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def load(cls, folder: Path) -> InputCard:
        """Read it from the input's folder; a folder without one has no label field and no JSON columns."""
        path = folder / "input.json"
        if not path.exists():
            return cls()
        document = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            dataset=str(document.get("dataset") or ""),
            version=str(document.get("version") or ""),
            key=str(document.get("key") or ""),
            label=str(document.get("label") or ""),
            json_columns=frozenset(document.get("json_columns") or ()),
        )


@dataclass(frozen=True)
class Table:
    """Records of a dataset version, or of one of its partitions."""

    arrow: pa.Table
    card: InputCard

    @property
    def rows(self) -> int:
        """The number of records."""
        return int(self.arrow.num_rows)

    @property
    def fields(self) -> tuple[str, ...]:
        """The records' fields, in the order of the columns."""
        return tuple(name for name in self.arrow.column_names if name not in (KEY, REVISION))

    def keys(self) -> list[str]:
        """The record keys, in order."""
        return [str(key) for key in self.arrow.column(KEY).to_pylist()]

    def take(self, rows: npt.NDArray[np.bool_]) -> Table:
        """Only the records where `rows` is true."""
        return Table(self.arrow.filter(pa.array(rows)), self.card)

    def raw(self, name: str) -> tuple[pa.ChunkedArray, bool]:
        """A field's Arrow column and whether it holds JSON text. InvalidArgument if there is no such field."""
        if name not in self.fields:
            raise InvalidArgument(
                f"the dataset has no field {name!r}; its fields are {', '.join(self.fields) or 'none'}", field=name
            )
        return self.arrow.column(name), name in self.card.json_columns

    def column(self, name: str) -> Column:
        """A field decoded by what it holds. InvalidArgument if it mixes types or has numbers beyond float32."""
        arrow, is_json = self.raw(name)
        column = from_json(name, arrow, self.keys) if is_json else from_arrow(name, arrow)
        if isinstance(column, NumberColumn):
            self._check_finite(column)
        return column

    def _check_finite(self, column: NumberColumn) -> None:
        infinite = np.isinf(column.values).reshape(self.rows, -1).any(axis=1)
        if infinite.any():
            key = self.keys()[int(np.argmax(infinite))]
            raise InvalidArgument(
                f"field {column.name!r} of record {key!r} is infinite or beyond single precision (3.4e38); "
                "correct the record or leave the field out with parameters.features",
                field=column.name,
            )


def partitions(folder: Path) -> Iterator[Table]:
    """The partitions of one input, in order of their names. InvalidArgument if there is none or one lacks the key."""
    card = InputCard.load(folder)
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise InvalidArgument(f"the input {folder.name!r} has no Parquet partitions (part-*.parquet)")
    # A partition has only the fields of its own records: one that is elsewhere is missing here, not unknown.
    fields = dict.fromkeys(name for path in paths for name in pq.read_schema(path).names)
    for path in paths:
        arrow = pq.ParquetFile(path).read()
        for needed in (KEY, REVISION):
            if needed not in arrow.column_names:
                raise InvalidArgument(f"{path.name} of the input {folder.name!r} has no column {needed!r}")
        for name in fields:
            if name not in arrow.column_names:
                arrow = arrow.append_column(name, pa.nulls(arrow.num_rows))
        yield Table(arrow, card)


def read_table(folder: Path) -> Table:
    """All partitions of one input as one table, ordered by key, so that results do not depend on the partitioning."""
    parts = list(partitions(folder))
    try:
        arrow = pa.concat_tables([part.arrow for part in parts], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidArgument(
            f"a field of the input {folder.name!r} changes its type between records: {error}"
        ) from error
    return Table(arrow.sort_by(KEY).combine_chunks(), parts[0].card)
