"""Page tokens and sizes (AIP-158): opaque, and good only for the request that they came from.

They are sealed with a key of the platform: a position says where to read on, so nobody else may make one up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from typing import Any

from google.protobuf.message import Message

from penstock.errors import InvalidArgument

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_SEAL_BYTES = 16
_key = secrets.token_bytes(32)


def page_size(asked: int, *, default: int = DEFAULT_PAGE_SIZE, maximum: int = MAX_PAGE_SIZE) -> int:
    """The number of items to return: 0 means `default`, and more than `maximum` means `maximum`."""
    if asked < 0:
        raise InvalidArgument(f"page_size is {asked}: use a positive number, or 0 for {default}.", field="page_size")
    return min(asked or default, maximum)


def seal_with(key: bytes) -> None:
    """Seal with this key from now on: with one that all replicas share, and that survives a restart, pages go on."""
    global _key
    _key = key


def encode_token(position: Any, request: Message) -> str:
    """A page token for `position` (JSON: where the next page begins), or "" for None: there are no more pages."""
    if position is None:
        return ""
    body = json.dumps(position, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_seal(body, request) + body).decode().rstrip("=")


def decode_token(token: str, request: Message) -> Any:
    """The position in a page token; None for "" (the first page). Raises InvalidArgument for one of another request."""
    if not token:
        return None
    try:
        sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidArgument("page_token is not one that this server made.", field="page_token") from error
    body = sealed[_SEAL_BYTES:]
    if not hmac.compare_digest(sealed[:_SEAL_BYTES], _seal(body, request)):
        raise InvalidArgument(
            "page_token is not of this request: keep every other field as it was, or begin again without it.",
            field="page_token",
        )
    return json.loads(body)


def _seal(body: bytes, request: Message) -> bytes:
    """Over all fields but the two of paging: the page size may change between pages, nothing else may."""
    bare = type(request)()
    bare.CopyFrom(request)
    for field in ("page_token", "page_size"):
        if field in request.DESCRIPTOR.fields_by_name:
            bare.ClearField(field)
    bound = request.DESCRIPTOR.full_name.encode() + b"\n" + bare.SerializeToString(deterministic=True)
    digest = hashlib.sha256(bound).digest()  # of fixed length, so that request and body cannot run into each other
    return hmac.digest(_key, digest + body, "sha256")[:_SEAL_BYTES]
