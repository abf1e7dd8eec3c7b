"""Page tokens and sizes (AIP-158): opaque, and good only for the request that they came from."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from google.protobuf.message import Message

from penstock.errors import InvalidArgument

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000


def page_size(asked: int, *, default: int = DEFAULT_PAGE_SIZE, maximum: int = MAX_PAGE_SIZE) -> int:
    """The number of items to return: 0 means `default`, and more than `maximum` means `maximum`."""
    if asked < 0:
        raise InvalidArgument(f"page_size is {asked}: use a positive number, or 0 for {default}.", field="page_size")
    return min(asked or default, maximum)


def encode_token(position: Any, request: Message) -> str:
    """A page token for `position` (JSON: where the next page begins), or "" for None: there are no more pages."""
    if position is None:
        return ""
    body = json.dumps([_fingerprint(request), position], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def decode_token(token: str, request: Message) -> Any:
    """The position in a page token; None for "" (the first page). Raises InvalidArgument for one of another request."""
    if not token:
        return None
    try:
        padded = token + "=" * (-len(token) % 4)
        bound, position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, TypeError) as error:
        raise InvalidArgument("page_token is not one that this server made.", field="page_token") from error
    if bound != _fingerprint(request):
        raise InvalidArgument(
            "page_token belongs to another request: keep every other field as it was, or begin again without it.",
            field="page_token",
        )
    return position


def _fingerprint(request: Message) -> str:
    """All fields but the two of paging: the page size may change between pages, nothing else may."""
    bare = type(request)()
    bare.CopyFrom(request)
    for field in ("page_token", "page_size"):
        if field in request.DESCRIPTOR.fields_by_name:
            bare.ClearField(field)
    body = request.DESCRIPTOR.full_name.encode() + b"\n" + bare.SerializeToString(deterministic=True)
    return hashlib.sha256(body).hexdigest()[:16]
