"""Tensors of the Open Inference Protocol (KServe v2) as JSON, without numpy.

Data is flat, row-major. A missing number is null in stored examples (NaN is not JSON) and NaN in memory; a missing
text is "".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.errors import InvalidArgument

FLOATS = frozenset({"FP16", "FP32", "FP64"})
INTEGERS = {
    f"{sign}INT{bits}": (-(2 ** (bits - 1)) if not sign else 0, 2 ** (bits - 1 if not sign else bits) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
_MAX_FLOAT = 2**1023
DATATYPES = FLOATS | frozenset(INTEGERS) | {"BOOL", "BYTES"}

Item = float | int | bool | str


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a signature: its name, KServe datatype, and shape, whose first dimension is -1, the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, item: object) -> TensorSpec:
        """From JSON. ValueError says what is wrong."""
        name, datatype, shape = _head(item)
        if shape[0] != -1:
            raise ValueError(f"shape {list(shape)}: the first dimension is the batch and must be -1")
        if any(size < 1 and size != -1 for size in shape[1:]):
            raise ValueError(f"shape {list(shape)}: a dimension is a positive number, or -1 for any")
        return cls(name, datatype, shape)

    def to_json(self) -> dict[str, Any]:
        """As it stands in model.json."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Tensor:
    """A tensor with its data, flat and row-major."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[Item, ...]

    @classmethod
    def parse(cls, item: object) -> Tensor:
        """From KServe v2 JSON, data flat or nested. ValueError says what is wrong."""
        name, datatype, shape = _head(item)
        data = item.get("data") if isinstance(item, dict) else None
        if not isinstance(data, list):
            raise ValueError("needs data, a list")
        items = tuple(_item(value, datatype) for value in _flat(data))
        if any(size < 0 for size in shape) or math.prod(shape) != len(items):
            raise ValueError(f"has {len(items)} values, which its shape {list(shape)} does not hold")
        return cls(name, datatype, shape, items)

    def to_json(self) -> dict[str, Any]:
        """KServe v2 JSON; NaN becomes null."""
        data = [None if isinstance(value, float) and math.isnan(value) else value for value in self.data]
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape), "data": data}

    def check(self, spec: TensorSpec) -> int:
        """The batch size, if this tensor fits `spec`. ValueError says what does not fit."""
        if self.datatype != spec.datatype:
            raise ValueError(f"has datatype {self.datatype}, the signature {spec.datatype}")
        fits = len(self.shape) == len(spec.shape) and all(
            wanted in (-1, size) for size, wanted in zip(self.shape, spec.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"has shape {list(self.shape)}, the signature {list(spec.shape)}")
        return self.shape[0]


def to_kserve(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Tensors as the `inputs` of a KServe v2 request. A missing number stays NaN, which servers on C++ parse."""
    return [{**tensor.to_json(), "data": list(tensor.data)} for tensor in tensors]


def records_to_tensors(specs: Sequence[TensorSpec], records: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
    """One batch of the inputs `specs` from records with raw fields, by name.

    A field that is absent or null is missing: NaN in a float input, "" in a text input; in an integer or boolean
    input it is an error. Booleans are numbers 0 and 1 where the input is numeric. Raises InvalidArgument naming both.
    """
    if not records:
        raise InvalidArgument("needs at least one record", field="records")
    return tuple(_collect(spec, records) for spec in specs)


def _collect(spec: TensorSpec, records: Sequence[Mapping[str, Any]]) -> Tensor:
    shape = spec.shape[1:]
    data: list[Item] = []
    for index, record in enumerate(records):
        try:
            data.extend(_values(record.get(spec.name), spec.datatype, shape))
        except ValueError as error:
            where = f"records[{index}].{spec.name}"
            raise InvalidArgument(f"{where}: {error}", field=where) from error
    return Tensor(spec.name, spec.datatype, (len(records), *shape), tuple(data))


def _values(value: Any, datatype: str, shape: tuple[int, ...]) -> list[Item]:
    if -1 in shape:
        raise ValueError(f"the model takes any shape {list(shape)} here; write the request by hand")
    size = math.prod(shape)
    if value is None and datatype in FLOATS:
        return [math.nan] * size
    if value is None and datatype == "BYTES":
        return [""] * size
    if value is None:
        raise ValueError(f"is missing, and an input of type {datatype} has no value for that")
    items = list(_flat(value)) if isinstance(value, list | tuple) else [value]
    if len(items) != size:
        raise ValueError(f"has {len(items)} values, the model takes {size} (shape {list(shape)})")
    return [_item(item, datatype) for item in items]


def differences(
    expected: Sequence[Tensor], outputs: Sequence[Mapping[str, Any]], tolerance: float, limit: int = 5
) -> list[str]:
    """What in the `outputs` of a KServe v2 answer is not as `expected`: at most `limit` findings, empty if all agrees.

    Numbers may differ by `tolerance` times the larger of 1 and the expected number; all else must be equal. NaN
    equals NaN only.
    """
    by_name = {str(output.get("name")): output for output in outputs}
    found: list[str] = []
    for tensor in expected:
        if tensor.name not in by_name:
            found.append(f"output {tensor.name} is missing")
            continue
        try:
            answer = Tensor.parse(by_name[tensor.name])
        except ValueError as error:
            found.append(f"output {tensor.name}: {error}")
            continue
        found.extend(_compare(tensor, answer, tolerance, limit))
    return found[:limit]


def _compare(expected: Tensor, answer: Tensor, tolerance: float, limit: int) -> list[str]:
    if (expected.datatype, expected.shape) != (answer.datatype, answer.shape):
        return [
            f"output {expected.name} is {answer.datatype} {list(answer.shape)}, "
            f"not {expected.datatype} {list(expected.shape)}"
        ]
    width = math.prod(expected.shape[1:])
    unequal = (
        f"output {expected.name} of example {index // width}: {got!r} instead of {want!r}"
        for index, (want, got) in enumerate(zip(expected.data, answer.data, strict=True))
        if not _close(want, got, tolerance if expected.datatype in FLOATS else 0.0)
    )
    return [text for _, text in zip(range(limit), unequal, strict=False)]


def _close(want: Item, got: Item, tolerance: float) -> bool:
    if isinstance(want, str) or isinstance(got, str):
        return want == got
    if math.isnan(want) or math.isnan(got):
        return math.isnan(want) and math.isnan(got)
    return want == got or abs(want - got) <= tolerance * max(1.0, abs(want))


def _head(item: object) -> tuple[str, str, tuple[int, ...]]:
    if not isinstance(item, Mapping):
        raise ValueError("needs an object with name, datatype and shape")
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    if not isinstance(name, str) or not name:
        raise ValueError("needs a name")
    if datatype not in DATATYPES:
        raise ValueError(f"datatype {datatype!r} is none of {', '.join(sorted(DATATYPES))}")
    if not isinstance(shape, list) or not shape or not all(type(size) is int for size in shape):
        raise ValueError("needs a shape, a list of whole numbers")
    return name, str(datatype), tuple(shape)


def _flat(value: Sequence[Any]) -> Iterator[Any]:
    for item in value:
        if isinstance(item, list | tuple):
            yield from _flat(item)
        else:
            yield item


def _item(value: Any, datatype: str) -> Item:
    """One value in the datatype's Python type. ValueError if it is of another kind."""
    if datatype == "BYTES":
        if isinstance(value, str):
            return value
    elif datatype == "BOOL":
        if isinstance(value, bool):
            return value
    elif datatype in FLOATS:
        if value is None:
            return math.nan
        if (isinstance(value, int | float) and abs(value) <= _MAX_FLOAT) or isinstance(value, float):
            return float(value)
    elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        low, high = INTEGERS[datatype]
        if low <= int(value) <= high:
            return int(value)
    raise ValueError(f"{value!r} is not of type {datatype}")
