"""What a program outside may publish as an event, and how it is read: CloudEvents in binary or structured mode."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import EncodeError

from penstock import names
from penstock.errors import InvalidArgument
from penstock.events.envelope import SPEC_VERSION, Event, attributes_of
from penstock.events.registry import PREFIX
from penstock.store import now

STRUCTURED = "application/cloudevents+json"
MAX_TEXT = 1_024  # characters of an attribute
SUBJECT = re.compile(r"penstock\.([^.]+)\.external\.(.+)")
_ATTRIBUTES = ("id", "source", "type", "specversion")


def decode_external(subject: str, headers: Mapping[str, str], body: bytes) -> Event:
    """The event in a message from outside; the project is that of the subject. Raises InvalidArgument."""
    found = SUBJECT.fullmatch(subject)
    if found is None:
        raise InvalidArgument(f"'{subject}' is no subject for events from outside.", field="subject")
    lower = {name.lower(): value for name, value in headers.items()}
    if lower.get("content-type", "").split(";")[0].strip() == STRUCTURED:
        document = _json(body)
        if not isinstance(document, dict):
            raise InvalidArgument("A structured CloudEvent is a JSON object.", field="data")
        data = document.pop("data", {})
        attributes = {str(name): str(value) for name, value in document.items()}
    else:
        attributes, data = attributes_of(headers), _json(body) if body else {}
    return external_event(found[1], attributes, data)


def external_event(project: str, attributes: Mapping[str, str], data: Any) -> Event:
    """Check the attributes of an event from outside. Raises InvalidArgument, naming the attribute."""
    for name in _ATTRIBUTES:
        if not attributes.get(name):
            raise InvalidArgument(f"An event needs the attribute '{name}'.", field=name)
    for name, value in attributes.items():
        if len(value) > MAX_TEXT:
            raise InvalidArgument(f"The attribute '{name}' is longer than {MAX_TEXT} characters.", field=name)
    if attributes["specversion"] != SPEC_VERSION:
        raise InvalidArgument(f"specversion must be {SPEC_VERSION}.", field="specversion")
    if attributes["type"].startswith(PREFIX):
        raise InvalidArgument(f"Types that begin with {PREFIX} are Penstock's own.", field="type")
    if not isinstance(data, dict):
        raise InvalidArgument("The data of an event must be a JSON object.", field="data")
    event = Event(
        id=attributes["id"],
        type=attributes["type"],
        source=attributes["source"],
        subject=attributes.get("subject", ""),
        sequence=0,
        time=_time(attributes.get("time", "")),
        data=data,
        correlation_id=attributes.get("correlationid", "")
        or external_id(project, attributes["source"], attributes["id"]),
        causation_id=attributes.get("causationid", ""),
        traceparent=attributes.get("traceparent", ""),
        project=names.check_id(project, "project"),
    )
    _check_form(event)
    return event


def _check_form(event: Event) -> None:
    """Raise InvalidArgument for what JSON can say and others cannot take: half of a character, a number of any size."""
    try:
        event.to_proto().SerializeToString()
    except (EncodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
        text = "An event's texts must be Unicode, its numbers finite, and its data nested 30 levels deep at most."
        raise InvalidArgument(text, field="data") from error


def external_id(project: str, source: str, id: str) -> str:
    """An id for `(source, id)` within a project, fit for any place."""
    return "x" + hashlib.sha256(f"{project}\n{source}\n{id}".encode()).hexdigest()[:24]


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"The data of an event must be JSON: {error}", field="data") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _time(text: str) -> datetime:
    if not text:
        return now()
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument("The attribute 'time' must be a time of RFC 3339.", field="time") from error
