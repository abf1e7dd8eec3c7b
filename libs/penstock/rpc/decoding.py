"""Requests that cannot be parsed: gRPC itself would answer them with the text of its exception, to anybody.

They are carried on as what they are, so that the caller is identified first, and told in our own words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

Decoder = Callable[[bytes], Any]


class Malformed:
    """Stands for a request that is no message of its type."""


def lenient(decode: Decoder | None) -> Decoder | None:
    """`decode`, but with `Malformed` for what it cannot read."""
    if decode is None:
        return None

    def decode_or_not(content: bytes) -> Any:
        try:
            return decode(content)
        except DecodeError:
            return Malformed()

    return decode_or_not
