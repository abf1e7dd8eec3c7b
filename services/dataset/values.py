"""Records as JSON: what a value may be, and the one text under which equal records are equal.

A record is kept as canonical JSON text (sorted keys, no spaces, whole numbers without a fraction), so that field names
with dots or dollar signs, deep nesting and exact 64-bit integers survive whatever database holds it, and so that
"differs from the head" is a comparison of texts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from penstock.errors import InvalidArgument

EXACT = 2**53  # beyond it a double does not tell whole numbers apart
MAX_INT = 2**63
MAX_DEPTH = 30  # protobuf gives up at 100 nested messages, and an object in an object is three
MAX_BYTES = 16 * 1024 * 1024 - 64 * 1024  # a document of 16 MiB, less what is kept beside the data
RESERVED = frozenset({"_key", "_revision"})  # columns of the partitions
_MODULUS = 2**256
# Made once: `json.dumps` with options makes one for each call.
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

Record = dict[str, Any]


class BadValue(ValueError):
    """A value that no record may hold. `path` says where it is, such as `tags[2].name`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class Cleaner:
    """Brings records to their canonical form; `missing` counts the NaN values that were left out."""

    def __init__(self) -> None:
        self.missing = 0

    def text(self, record: Mapping[str, Any]) -> str:
        """The canonical JSON text of a record. Raises BadValue."""
        return encode(self.record(record))

    def record(self, record: Mapping[str, Any]) -> Record:
        """The record in canonical form. A null, or NaN, at the top level means that the field is missing."""
        cleaned = {}
        for name, value in record.items():
            _check_name(name)
            item = self._value(value, name, 2)
            if item is not None:
                cleaned[name] = item
        return cleaned

    def _value(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            if not -MAX_INT <= value < MAX_INT:
                raise BadValue(path, f"{value} does not fit into 64 bits: write it as text")
            return value
        if kind is float:
            return self._float(value, path)
        if depth > MAX_DEPTH:
            raise BadValue(path, f"the record is nested deeper than {MAX_DEPTH} levels")
        if kind is dict:
            return self._object(value, path, depth)
        if kind is list:
            return [self._value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        raise BadValue(path, f"a value of type {kind.__name__} is not JSON")

    def _object(self, value: dict[str, Any], path: str, depth: int) -> Record:
        cleaned = {}
        for name, item in value.items():
            found = self._value(item, f"{path}.{name}", depth + 1)
            # NaN in an object is a missing field; a null that was written as null stays.
            if found is not None or item is None:
                cleaned[name] = found
        return cleaned

    def _float(self, value: float, path: str) -> int | float | None:
        if value.is_integer() and -EXACT <= value <= EXACT:
            return int(value)
        if math.isnan(value):
            self.missing += 1
            return None
        if math.isinf(value):
            raise BadValue(path, "Infinity is not a JSON number: leave the field out or write it as text")
        return value


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or "\x00" in name:
        raise BadValue("", f"{name!r} is not a field name: it must be text, not empty and without NUL")
    if name in RESERVED:
        raise BadValue(name, f"'{name}' is reserved for the partitions: rename the field")


def encode(value: Any) -> str:
    """Canonical JSON text of a clean record or value. Raises BadValue if it is too large or no Unicode text."""
    text = _ENCODE(value)
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        _refuse_surrogates(value, "")
    if size > MAX_BYTES:
        raise BadValue("", f"the record has {size} bytes; {MAX_BYTES} are the limit: keep large things as files")
    return text


def _refuse_surrogates(value: Any, path: str) -> NoReturn:
    """Name the place of a text that is no Unicode (half of a surrogate pair)."""
    found = _surrogate(value, path)
    raise BadValue(found or path, "holds half of a surrogate pair, which is not Unicode text")


def _surrogate(value: Any, path: str) -> str | None:
    if isinstance(value, str):
        return path if any("\ud800" <= c <= "\udfff" for c in value) else None
    pairs: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        pairs = [(item, f"{path}.{_shown(name)}".lstrip(".")) for name, item in value.items()]
        bad = next((name for name in value if _surrogate(name, "x")), None)
        if bad is not None:
            return f"{path}.{_shown(bad)}".lstrip(".")
    elif isinstance(value, list):
        pairs = [(item, f"{path}[{index}]") for index, item in enumerate(value)]
    return next((found for item, inner in pairs if (found := _surrogate(item, inner))), None)


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def decode(text: str) -> Record:
    """The record of a canonical text."""
    record: Record = json.loads(text)
    return record


def key_text(value: Any) -> str:
    """The key that a value of the key field is: text as it is, whole numbers as decimal text. Raises BadValue."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadValue("", f"{json.dumps(value)[:40]} cannot be a key: use text or a whole number")


def check_wire(value: Any, path: str) -> None:
    """Refuse whole numbers that may have lost digits on the way, as numbers on the wire are doubles."""
    if isinstance(value, float) and value.is_integer() and EXACT < abs(value) < 2 * MAX_INT:
        raise InvalidArgument(
            f"{path}: {value:.0f} is beyond 2^53, where numbers in requests lose digits: write it as text, or import "
            "it from a file, which keeps 64 bits.",
            field=path,
        )
    if isinstance(value, dict):
        for name, item in value.items():
            check_wire(item, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_wire(item, f"{path}[{index}]")


def to_struct(record: Mapping[str, Any]) -> Struct:
    """A record on the wire. Integers beyond 2^53 become decimal text, as proto-JSON does for int64."""
    struct = Struct()
    _fill(struct, record)
    return struct


def _fill(struct: Struct, record: Mapping[str, Any]) -> None:
    fields = struct.fields
    for name, item in record.items():
        _set(fields[name], item)


def _set(target: Value, value: Any) -> None:
    kind = type(value)
    if kind is str:
        target.string_value = value
    elif kind is int:
        if -EXACT <= value <= EXACT:
            target.number_value = value
        else:
            target.string_value = str(value)
    elif kind is float:
        target.number_value = value
    elif kind is bool:
        target.bool_value = value
    elif kind is dict:
        target.struct_value.SetInParent()
        _fill(target.struct_value, value)
    elif kind is list:
        items: ListValue = target.list_value
        items.SetInParent()
        for item in value:
            _set(items.values.add(), item)
    else:
        target.null_value = 0  # type: ignore[assignment]


def row_hash(key: str, text: str) -> int:
    """A number for one row; their sum modulo 2^256 stands for a set of rows, whatever their order."""
    encoded = key.encode()
    body = len(encoded).to_bytes(4, "big") + encoded + text.encode()
    return int.from_bytes(hashlib.sha256(body).digest(), "big")


def add_rows(total: str, change: int) -> str:
    """The sum of a set of rows (64 hex digits) after `change` was added to it."""
    return f"{(int(total, 16) + change) % _MODULUS:064x}"


NO_ROWS = "0" * 64


def rows_digest(total: str) -> str:
    """How the digest of a set of rows is written."""
    return f"rows-sha256:{total}"
