"""Idempotent creates (AIP-155): the same request id from the same caller gives the same resource id."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.message import Message

from penstock import names
from penstock.errors import AlreadyExists, InvalidArgument
from penstock.rpc.caller import caller

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(request: Message) -> str:
    """The request's `request_id`, or "" if it has none. Raises InvalidArgument for one that is not printable ASCII."""
    message: Any = request
    value: str = message.request_id if "request_id" in request.DESCRIPTOR.fields_by_name else ""
    if value and not _REQUEST_ID.fullmatch(value):
        raise InvalidArgument("request_id must be 1 to 128 printable ASCII characters.", field="request_id")
    return value


def resource_id(request: Message, project: str) -> str:
    """The id of what this request creates: fixed by caller, project and request id, or random without a request id."""
    return names.new_id(f"{project}\n{caller().actor}", request_id(request))


def request_key(request: Message, scope: str) -> str:
    """What a document remembers a request by: another caller's, or another command's, is another request.

    "" without a request id.
    """
    asked = f"{request.DESCRIPTOR.full_name}\n{scope}\n{caller().actor}"
    return names.new_id(asked, request_id(request)) if request_id(request) else ""


def check_repeat(*, same: bool) -> None:
    """Raise AlreadyExists if what was made under a request id is not the same as what is asked for under it now."""
    if not same:
        text = "This request id was used for something else: choose another one for what is asked for now."
        raise AlreadyExists(text, field="request_id")
