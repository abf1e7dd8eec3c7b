"""What a field of a dataset holds, decoded from Arrow or from JSON text: numbers, text, or neither."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import InvalidArgument

Floats = npt.NDArray[np.float32]


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


def from_arrow(name: str, arrow: pa.ChunkedArray) -> Column:
    """A column by its type."""
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


def from_json(name: str, arrow: pa.ChunkedArray, keys: Callable[[], list[str]]) -> Column:
    """A column of JSON text: used if all its values turn out to be of one kind.

    Raises InvalidArgument if it mixes types; `keys` gives the records' keys, to name two of them.
    """
    values = [None if text is None else json.loads(text) for text in arrow.to_pylist()]
    kinds = {_kind(value): row for row, value in reversed(list(enumerate(values))) if value is not None}
    if set(kinds) <= {"numbers", "booleans"}:
        boolean = set(kinds) == {"booleans"}
        floats = pa.chunked_array([pa.array([None if v is None else float(v) for v in values], pa.float64())])
        column = from_arrow(name, floats)
        return NumberColumn(name, column.values, boolean) if isinstance(column, NumberColumn) else column
    if set(kinds) == {"text"}:
        return TextColumn(name, _objects(["" if value is None else value for value in values]))
    if set(kinds) == {"lists"}:
        return _from_lists(name, values)
    if set(kinds) == {"objects"}:
        return UnusableColumn(name, "it holds objects")
    met = sorted(kinds.items(), key=lambda item: item[1])
    where = " and ".join(f"{kind} ({json.dumps(values[row])[:40]} in record {keys()[row]!r})" for kind, row in met)
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
        return from_arrow(name, pa.chunked_array([pa.array(_as_floats(values))]))
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
