"""Reads a dataset as a job sees it: Parquet partitions with a column per field, and `input.json` beside them.

Fields are decoded by what they hold, the same way for training and evaluation: numbers and booleans (missing is NaN),
lists of numbers of one shape (images, embeddings), text (missing is ""). Whatever else there is
counts as unusable, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.errors import InvalidArgument

KEY = "_key"
REVISION = "_revision"

Floats = npt.NDArray[np.float32]


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
class NumberColumn:
    """Numbers of one shape per record: `values` is float32 [records, *shape], NaN where missing."""

    name: str
    values: Floats
    boolean: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one record's value: (1,) for a single number."""
        return tuple(self.values.shape[1:])

    def part(self, rows: slice) -> NumberColumn:
        """The same field, of some records."""
        return NumberColumn(self.name, self.values[rows], self.boolean)


@dataclass(frozen=True)
class TextColumn:
    """Text per record, "" where missing: `values` is an object array [records] of str."""

    name: str
    values: npt.NDArray[np.object_]

    def part(self, rows: slice) -> TextColumn:
        """The same field, of some records."""
        return TextColumn(self.name, self.values[rows])


@dataclass(frozen=True)
class MissingColumn:
    """A column without a single value: nothing to learn from, but a model may be asked with it."""

    name: str
    records: int


@dataclass(frozen=True)
class UnusableColumn:
    """A column that no built-in algorithm can use, and why."""

    name: str
    reason: str


UsableColumn = NumberColumn | TextColumn
Column = UsableColumn | MissingColumn | UnusableColumn


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
        column = _from_json(name, arrow, self) if is_json else _from_arrow(name, arrow)
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


def _from_arrow(name: str, arrow: pa.ChunkedArray) -> Column:
    if pa.types.is_dictionary(arrow.type):
        arrow = arrow.cast(arrow.type.value_type)
    kind = arrow.type
    if pa.types.is_null(kind):
        return MissingColumn(name, len(arrow))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return TextColumn(name, _objects(pc.fill_null(arrow, "").to_pylist()))
    if _is_number(kind):
        values = _numbers(arrow)
        if np.isnan(values).all():
            return MissingColumn(name, len(arrow))
        return NumberColumn(name, values.reshape(-1, 1), boolean=pa.types.is_boolean(kind))
    if _is_list(kind):
        return _vector(name, arrow)
    return UnusableColumn(name, f"values of type {kind} are neither numbers, text nor lists of numbers")


def _vector(name: str, arrow: pa.ChunkedArray) -> Column:
    if arrow.null_count == len(arrow):
        return MissingColumn(name, len(arrow))
    try:
        values = _nested(arrow)
    except ValueError as error:
        return UnusableColumn(name, str(error))
    if values.size == 0 or np.isnan(values).all():
        return UnusableColumn(name, "its lists are empty")
    return NumberColumn(name, values)


def _nested(arrow: pa.ChunkedArray) -> Floats:
    """Lists of one length, of numbers or of further such lists, as float32 [records, length, ...]."""
    if _is_number(arrow.type):
        return _numbers(arrow)
    if not _is_list(arrow.type):
        raise ValueError(f"its lists hold values of type {arrow.type}, not numbers")
    lengths = {length for length in pc.unique(pc.list_value_length(arrow)).to_pylist() if length is not None}
    if len(lengths) != 1:
        raise ValueError(f"its lists have different lengths ({', '.join(str(n) for n in sorted(lengths)[:4])} ...)")
    present = np.asarray(pc.is_valid(arrow).to_numpy())
    inner = _nested(pc.list_flatten(arrow))
    length = lengths.pop()
    values = np.full((len(arrow), length, *inner.shape[1:]), np.nan, dtype=np.float32)
    values[present] = inner.reshape(int(present.sum()), length, *inner.shape[1:])
    return values


def _from_json(name: str, arrow: pa.ChunkedArray, table: Table) -> Column:
    """A column of JSON text: used if all its values turn out to be of one kind."""
    values = [None if text is None else json.loads(text) for text in arrow.to_pylist()]
    kinds = {_kind(value): row for row, value in reversed(list(enumerate(values))) if value is not None}
    if set(kinds) <= {"numbers", "booleans"}:
        boolean = set(kinds) == {"booleans"}
        floats = pa.chunked_array([pa.array([None if v is None else float(v) for v in values], pa.float64())])
        column = _from_arrow(name, floats)
        return NumberColumn(name, column.values, boolean) if isinstance(column, NumberColumn) else column
    if set(kinds) == {"text"}:
        return TextColumn(name, _objects(["" if value is None else value for value in values]))
    if set(kinds) == {"lists"}:
        return _from_lists(name, values)
    if set(kinds) == {"objects"}:
        return UnusableColumn(name, "it holds objects")
    keys = table.keys()
    met = sorted(kinds.items(), key=lambda item: item[1])
    where = " and ".join(f"{kind} ({json.dumps(values[row])[:40]} in record {keys[row]!r})" for kind, row in met)
    raise InvalidArgument(
        f"field {name!r} mixes {where}; make it one type or leave it out with parameters.features", field=name
    )


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "booleans"
    if isinstance(value, int | float):
        return "numbers"
    if isinstance(value, str):
        return "text"
    return "lists" if isinstance(value, list) else "objects"


def _from_lists(name: str, values: Sequence[Any]) -> Column:
    """Lists of JSON values: usually all of one shape and without gaps, which numpy reads at once."""
    try:
        numbers = np.array(values)
    except ValueError:
        numbers = np.empty(0, dtype=np.object_)
    if numbers.dtype.kind in "iufb" and numbers.size:
        with np.errstate(over="ignore"):
            return NumberColumn(name, numbers.astype(np.float32))
    try:
        return _from_arrow(name, pa.chunked_array([pa.array(_as_floats(values))]))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return UnusableColumn(name, "its lists hold more than numbers, or differ in depth")


def _as_floats(value: Any) -> Any:
    """Nested lists with all numbers as floats, so that Arrow sees one type."""
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return value if value is None else float(value) if isinstance(value, int | float) else value


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _numbers(arrow: pa.ChunkedArray) -> Floats:
    """Any numeric or boolean column as float32, NaN where missing; too large becomes infinite, for a later check."""
    doubles = arrow.cast(pa.float64(), safe=False).to_numpy()
    with np.errstate(over="ignore"):
        return np.asarray(doubles, dtype=np.float32)


def _objects(values: Sequence[str]) -> npt.NDArray[np.object_]:
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array
