"""Events as causes of runs: what is kept of them, what expressions see of them, and the chain that they continue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from penstock.events import Event
from penstock.events.external_form import external_id
from penstock.events.registry import to_message
from penstock.store import Cause as Chain
from penstock.store import current_cause, format_time
from services.pipeline.model import Cause

_WHOLE = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)


def cause_of(event: Event) -> Cause:
    """What is kept of an event that may cause a run."""
    own = event.sequence > 0
    return Cause(
        # What a program outside chose for an id is unique for its source only.
        key=event.id if own else external_id(event.project, event.source, event.id),
        event_id=event.id,
        type=event.type,
        source=event.source,
        subject=event.subject,
        time=event.time,
        data=_whole_body(event) if own else dict(event.data),
        correlation_id=event.correlation_id or event.id,
        traceparent=event.traceparent,
        causation_id=event.causation_id,
    )


def _whole_body(event: Event) -> dict[str, Any]:
    """The body with every field, and numbers as numbers: JSON leaves zeros out and has 64-bit numbers as text."""
    message = to_message(event.type, event.data)
    body: dict[str, Any] = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    for field in message.DESCRIPTOR.fields:
        if field.type in _WHOLE and not field.is_repeated:
            body[field.json_name] = int(body[field.json_name])
    return body


def event_variables(cause: Cause) -> dict[str, Any]:
    """What expressions see as `event`."""
    return {**cause_document(cause), "id": cause.event_id, "source": cause.source}


def cause_document(cause: Cause) -> dict[str, Any]:
    """A cause as JSON."""
    return {
        "event_id": cause.event_id,
        "type": cause.type,
        "subject": cause.subject,
        "time": format_time(cause.time),
        "data": dict(cause.data),
        "correlation_id": cause.correlation_id,
    }


@contextmanager
def caused_by(cause: Cause, event: str = "") -> Iterator[None]:
    """Make what is done within the block part of a cause's chain: caused by `event` of it, or by itself."""
    token = current_cause.set(Chain(cause.correlation_id, event or cause.key, cause.traceparent))
    try:
        yield
    finally:
        current_cause.reset(token)
