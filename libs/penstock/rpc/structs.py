"""google.protobuf.Struct and plain Python values, in both directions.

A Struct knows only doubles: whole numbers come back as int (so 3.0 comes back as 3), which is what parameters and
records need. NaN and infinities are not JSON and are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from penstock.errors import InvalidArgument

_EXACT = 2**53  # above it a double no longer tells whole numbers apart
_DEPTH = 32  # protobuf reads 100 nested messages, and an object in an object is three


def to_struct(values: Mapping[str, Any], *, field: str = "") -> Struct:
    """A Struct of a JSON-like mapping. Raises InvalidArgument, naming the path, for what JSON cannot say."""
    return _struct(values, field, 1)


def to_value(value: Any, *, field: str = "value") -> Value:
    """A Value of a JSON-like value; see to_struct."""
    return _value(value, field, 1)


def _struct(values: Mapping[str, Any], field: str, depth: int) -> Struct:
    struct = Struct()
    for key, value in values.items():
        struct.fields[key].CopyFrom(_value(value, f"{field}.{key}" if field else key, depth))
    return struct


def _value(value: Any, field: str, depth: int) -> Value:
    if value is None:
        return Value(null_value=0)  # type: ignore[arg-type]
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, int | float):
        return Value(number_value=_number(value, field))
    if isinstance(value, str):
        return Value(string_value=value)
    if depth > _DEPTH:
        raise InvalidArgument(f"The value is nested deeper than {_DEPTH} levels.", field=field)
    if isinstance(value, Mapping):
        return Value(struct_value=_struct(value, field, depth + 1))
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        items = [_value(item, f"{field}[{index}]", depth + 1) for index, item in enumerate(value)]
        return Value(list_value=ListValue(values=items))
    raise InvalidArgument(f"A {type(value).__name__} is not a JSON value.", field=field)


def _number(value: int | float, field: str) -> float:
    if isinstance(value, int) and abs(value) > _EXACT:
        raise InvalidArgument(f"{value} is too large for a JSON number: use a string.", field=field)
    if not math.isfinite(value):
        raise InvalidArgument(f"{value} is not a JSON number: leave the field out or use a string.", field=field)
    return float(value)


def from_struct(struct: Struct) -> dict[str, Any]:
    """The plain dict of a Struct."""
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_value(value: Value) -> Any:
    """The plain value of a Value (an unset one is None)."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [from_value(item) for item in value.list_value.values]
    return getattr(value, kind)
