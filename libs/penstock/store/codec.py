"""How values look in the database, so that every server compares them alike.

nx-27017 takes any string that begins like a date for a date, in filters of every kind and in `_id` too: `2026-11-20x`
equals, and updates, `2026-11-20y`. It also cannot compare BSON dates. So strings that a filter may meet are stored
with a tag in front (`~text`, `@time`), which keeps their order and no server takes for anything but text.
Keys of free mappings lose `.` and `$`, which are operators or paths to some servers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeAlias

from penstock.errors import InvalidArgument

Document: TypeAlias = dict[str, Any]
Scalar: TypeAlias = str | int | float | bool | datetime | Enum

_TEXT, _TIME = "~", "@"
_PLAIN_ID = re.compile(r"[A-Za-z]")
_UNSAFE_KEY = re.compile(r"[.$%\x00]")
_ESCAPED = re.compile(r"%(2E|24|25|00)")
_MAX_INT = 2**63


def now() -> datetime:
    """The current time in UTC, cut to milliseconds as the database keeps it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def format_time(moment: datetime) -> str:
    """`2026-11-20T12:00:00.000Z`: UTC in milliseconds, of fixed width, so that text order is time order."""
    if moment.tzinfo is None:
        raise InvalidArgument("A time without a time zone cannot be stored: use an aware datetime.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """The inverse of `format_time`."""
    return datetime.fromisoformat(text)


def encode_id(id: str) -> str:
    """An id as `_id`; the order of ids is not kept (nothing may sort by `_id`)."""
    if not id:
        raise InvalidArgument("An id must not be empty.")
    return id if _PLAIN_ID.match(id) else _TEXT + id


def decode_id(stored: str) -> str:
    """The inverse of `encode_id`."""
    return stored[1:] if stored.startswith(_TEXT) else stored


def encode_scalar(value: Scalar) -> str | int | float | bool:
    """A value of an indexed field. Keeps the order of texts, times and numbers; raises InvalidArgument for others."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return _TEXT + value
    if isinstance(value, datetime):
        return _TIME + format_time(value)
    if isinstance(value, bool | int) and -_MAX_INT <= value < _MAX_INT:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise InvalidArgument(f"{value!r} cannot be a value of an indexed field.")


def decode_scalar(stored: Any) -> Any:
    """The inverse of `encode_scalar` (an Enum comes back as its value)."""
    if isinstance(stored, str):
        return parse_time(stored[1:]) if stored.startswith(_TIME) else stored[1:]
    return stored


def encode_key(key: Any) -> str:
    """A key of a free mapping: without what is an operator or a path to some servers."""
    text = str(key)
    return text if text.isidentifier() else _UNSAFE_KEY.sub(lambda match: f"%{ord(match[0]):02X}", text)


def encode_tree(value: Any) -> Any:
    """Free data (JSON and times) as it can be stored; NaN and infinities become the texts of their JSON names."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is dict:  # first, and without a call for what most hold: a bulk of rows is made of these
        return {encode_key(key): item if type(item) is str else encode_tree(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return encode_tree(value.value)
    if isinstance(value, int):
        if not -_MAX_INT <= value < _MAX_INT:
            raise InvalidArgument(f"{value} does not fit into 64 bits: store it as text.")
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _non_finite(value)
    if isinstance(value, Mapping):
        return {encode_key(key): encode_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode_tree(item) for item in value]
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, str):
        return str(value)
    raise InvalidArgument(f"A {type(value).__name__} cannot be stored.")


def decode_tree(stored: Any) -> Any:
    """The inverse of `encode_tree`, but that times, tuples and numbers that are none stay texts and lists."""
    if isinstance(stored, dict):
        return {_unescape(key): decode_tree(item) for key, item in stored.items()}
    if isinstance(stored, list):
        return [decode_tree(item) for item in stored]
    return stored


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _unescape(key: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), key) if "%" in key else key
