"""The values in documents that people write (YAML), taken with errors that name the field."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from datetime import date
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from penstock.errors import InvalidArgument
from penstock.rpc.structs import to_struct

_DURATION = re.compile(r"(\d{1,9}(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_SECONDS = 100 * 365 * 86400.0
_MAX_WHOLE = 2**31 - 1


def parse_whole(value: Any, field: str) -> int:
    """A whole number, 0 or more; digits as text are one too (a reference within text makes text)."""
    text = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    number = int(value) if text else value
    known = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not known or not 0 <= number <= _MAX_WHOLE or number != int(number):
        raise InvalidArgument(f"{field}: '{value}' is not a whole number from 0 to {_MAX_WHOLE:,}.", field=field)
    return int(number)


def parse_wholes(value: Any, field: str) -> list[int]:
    """A list of whole numbers; nothing is an empty one."""
    if value is not None and not isinstance(value, list):
        raise InvalidArgument(f"{field} must be a list of whole numbers.", field=field)
    return [parse_whole(item, f"{field}[{index}]") for index, item in enumerate(value or ())]


def parse_mapping(value: Any, field: str) -> Struct:
    """A mapping of JSON values; nothing is an empty one."""
    if value is not None and not isinstance(value, Mapping):
        raise InvalidArgument(f"{field} must be a mapping of names to values.", field=field)
    return to_struct(_plain(value or {}), field=field)


def _plain(value: Any) -> Any:
    """YAML's keys may be numbers and its values dates; JSON knows neither."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def parse_text(value: Any, field: str) -> str:
    """A text, or a number as it is written; nothing is ""."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int, float))):
        raise InvalidArgument(f"{field}: '{value}' is not a text.", field=field)
    return "" if value is None else str(value)


def parse_flag(value: Any, field: str) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise InvalidArgument(f"{field}: '{value}' is neither true nor false.", field=field)
    return value


def parse_duration(value: Any, field: str) -> Duration:
    """`500ms`, `2s`, `5m`, `1h`, `30d`, or a number of seconds."""
    seconds: float = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = value
    elif match := _DURATION.fullmatch(str(value)):
        seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _MAX_SECONDS:
        raise InvalidArgument(f"{field}: '{value}' is too long: at most {_MAX_SECONDS / 86400:.0f}d.", field=field)
    if not seconds >= 0:  # nor if it is no number
        raise InvalidArgument(f"{field}: '{value}' is not a duration such as 500ms, 2s, 5m, 1h or 30d.", field=field)
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def parse_command(text: str, field: str = "command") -> list[str]:
    """The words of a line, split as a shell would."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"'{text}' is not a command: {error}.", field=field) from None


def check_fields(document: Mapping[str, Any], known: set[str]) -> None:
    """Raise InvalidArgument, naming it, for a field that is not known."""
    unknown = sorted(set(document) - known)
    if unknown:
        raise InvalidArgument(f"Unknown field '{unknown[0]}'; known: {', '.join(sorted(known))}.", field=unknown[0])
