"""Events as CloudEvents 1.0: in code, as NATS headers and body (binary mode), and as the API's message.

Header values are percent-encoded as the HTTP binding says: NATS headers are lines of text too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from google.protobuf import json_format
from google.protobuf.message import Message

from penstock import names
from penstock.api.event.v1 import events_pb2
from penstock.errors import InvalidArgument
from penstock.events.registry import PREFIX, SUFFIX, event_type, short_type, to_message
from penstock.store import format_time, parse_time

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"
_PLAIN = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # printable ASCII but for space, double quote and percent


@dataclass(frozen=True)
class NewEvent:
    """An event to be written with a change: a registered type, and its body as proto-JSON.

    Raises InvalidArgument for a type that is not registered or a body that is not its message's.
    """

    type: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        message = event_type(self.type).message()
        try:
            json_format.ParseDict(dict(self.data), message)
        except json_format.ParseError as error:
            raise InvalidArgument(f"The data of a {self.type} event is not right: {error}", field="data") from error

    @classmethod
    def of(cls, message: Message) -> NewEvent:
        """The event whose body is `message`."""
        type = message.DESCRIPTOR.GetOptions().Extensions[events_pb2.type]
        return cls(type, json_format.MessageToDict(message))


@dataclass(frozen=True)
class Event:
    """Something that happened. `type` has no prefix and version if it is one of Penstock's own."""

    id: str  # `<resource>@<sequence>`; whatever the source chose for events from outside
    type: str
    source: str
    subject: str  # the resource whose document held the outbox; anything, or nothing, from outside
    sequence: int  # 1, 2, 3, … of the subject, without gaps; 0 from outside
    time: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""
    project: str = ""

    @property
    def full_type(self) -> str:
        """The type as CloudEvents carry it."""
        return f"{PREFIX}{self.type}{SUFFIX}" if self.sequence else self.type

    def message(self) -> Message:
        """The body as its registered message; raises InvalidArgument for a type of others."""
        return to_message(self.type, self.data)

    def to_proto(self) -> events_pb2.Event:
        """The API's form."""
        proto = events_pb2.Event(
            id=self.id,
            source=self.source,
            type=self.full_type,
            subject=self.subject,
            sequence=self.sequence,
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            traceparent=self.traceparent,
            project=self.project,
        )
        proto.time.FromDatetime(self.time)
        proto.data.update(self.data)
        return proto

    @classmethod
    def from_proto(cls, proto: events_pb2.Event) -> Event:
        """The inverse of `to_proto`."""
        return cls(
            id=proto.id,
            type=short_type(proto.type),
            source=proto.source,
            subject=proto.subject,
            sequence=proto.sequence,
            time=proto.time.ToDatetime(tzinfo=UTC),
            data=json_format.MessageToDict(proto.data),
            correlation_id=proto.correlation_id,
            causation_id=proto.causation_id,
            traceparent=proto.traceparent,
            project=proto.project,
        )


def source_of(service: str) -> str:
    """The CloudEvents source of a service."""
    return f"//penstock/{service}"


def from_entry(entry: str) -> Event:
    """The event of an outbox entry."""
    fields = json.loads(entry)
    name = names.parse(fields["subject"])
    return Event(
        id=fields["id"],
        type=fields["type"],
        source=source_of(name.service),
        subject=fields["subject"],
        sequence=fields["sequence"],
        time=parse_time(fields["time"]),
        data=fields["data"],
        correlation_id=fields["correlation_id"],
        causation_id=fields["causation_id"],
        traceparent=fields["traceparent"],
        project=name.project,
    )


def encode(event: Event) -> tuple[dict[str, str], bytes]:
    """Headers and body of an event in binary mode."""
    attributes = {
        "specversion": SPEC_VERSION,
        "id": event.id,
        "type": event.full_type,
        "source": event.source,
        "subject": event.subject,
        "time": format_time(event.time),
        "sequence": str(event.sequence) if event.sequence else "",
        "correlationid": event.correlation_id,
        "causationid": event.causation_id,
        "traceparent": event.traceparent,
    }
    headers = {f"ce-{name}": quote(value, safe=_PLAIN) for name, value in attributes.items() if value}
    headers["content-type"] = CONTENT_TYPE
    return headers, json.dumps(event.data, separators=(",", ":"), ensure_ascii=False).encode()


def attributes_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The CloudEvents attributes among headers, decoded, by lower-case name."""
    found = {name.lower(): value for name, value in headers.items()}
    return {name[3:]: unquote(value) for name, value in found.items() if name.startswith("ce-")}


def decode(headers: Mapping[str, str], body: bytes) -> Event:
    """One of Penstock's own events from headers and body. Raises InvalidArgument if it is malformed."""
    attributes = attributes_of(headers)
    try:
        return Event(
            id=attributes["id"],
            type=short_type(attributes["type"]),
            source=attributes["source"],
            subject=attributes["subject"],
            sequence=int(attributes["sequence"]),
            time=parse_time(attributes["time"]),
            data=json.loads(body),
            correlation_id=attributes.get("correlationid", ""),
            causation_id=attributes.get("causationid", ""),
            traceparent=attributes.get("traceparent", ""),
            project=names.project_of(attributes["subject"]),
        )
    except (KeyError, ValueError) as error:
        raise InvalidArgument(f"This is not an event of Penstock: {error!r}.") from error
