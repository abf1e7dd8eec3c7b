"""The registry of event types: read from the messages of `penstock.api.event.v1`, and read by everything else.

A message with the option `type` is an event. Subjects, the AsyncAPI file, the docs and lineage follow from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, TypeAlias

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

from penstock import names
from penstock.api.event.v1 import events_pb2
from penstock.errors import InvalidArgument

PREFIX = "dev.penstock."
SUFFIX = ".v1"
MessageClass: TypeAlias = type[Message]
_PROTO = "penstock/api/event/v1/events.proto"


@dataclass(frozen=True)
class EventType:
    """One type: its name without prefix and version, who emits it, the kind of resource it is about, its body."""

    type: str
    service: str
    kind: str  # of `penstock.names`: the resource whose document holds the outbox
    message: MessageClass

    @property
    def full(self) -> str:
        """The type as CloudEvents carry it."""
        return f"{PREFIX}{self.type}{SUFFIX}"

    @property
    def aggregate(self) -> str:
        """What consumers subscribe to: `<service>.<kind>`, such as `training.run`."""
        return f"{self.service}.{self.kind}"

    @property
    def token(self) -> str:
        """The last token of the NATS subject, such as `succeeded` or `version-committed`."""
        return event_token(self.type, self.kind)

    @property
    def description(self) -> str:
        """The comment of the message in the proto."""
        return _comments().get(self.message.DESCRIPTOR.name, "")


def event_token(type: str, kind: str) -> str:
    """The last token of an event's subject: its type without the service and, where it repeats it, the kind."""
    words = type.split(".")[1:]
    return "-".join(words[1:] if len(words) > 1 and words[0] == kind else words)


def event_type(type: str) -> EventType:
    """The type of that name, with or without prefix and version. Raises InvalidArgument for an unknown one."""
    found = EVENT_TYPES.get(short_type(type))
    if found is None:
        raise InvalidArgument(f"'{type}' is not an event type of Penstock.", field="type")
    return found


def short_type(full: str) -> str:
    """A type without `dev.penstock.` and `.v1`; types of others stay as they are."""
    return full.removeprefix(PREFIX).removesuffix(SUFFIX) if full.startswith(PREFIX) else full


def to_message(type: str, data: Mapping[str, Any]) -> Message:
    """The body of an event as its message. Unknown fields (of a newer release) are ignored; else InvalidArgument."""
    message = event_type(type).message()
    try:
        json_format.ParseDict(dict(data), message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise InvalidArgument(f"The data of a {type} event is not right: {error}", field="data") from error
    return message


def _types() -> dict[str, EventType]:
    found = {}
    for message in events_pb2.DESCRIPTOR.message_types_by_name.values():
        options = message.GetOptions()
        type = options.Extensions[events_pb2.type]
        if type:
            found[type] = _event_type(type, options.Extensions[events_pb2.kind], message)
    return found


def _event_type(type: str, kind: str, message: Descriptor) -> EventType:
    service = type.split(".")[0]
    if kind not in names.PATTERNS or names.PATTERNS[kind][0] != service:
        raise ValueError(f"{type}: '{kind}' is not a kind of resource of the {service} service")
    return EventType(type, service, kind, message_factory.GetMessageClass(message))


@cache
def _comments() -> dict[str, str]:
    """Message name -> leading comment, from the generated descriptor set."""
    packed = resources.files("penstock.api").joinpath("descriptors.binpb").read_bytes()
    proto = next(file for file in FileDescriptorSet.FromString(packed).file if file.name == _PROTO)
    return {
        proto.message_type[location.path[1]].name: " ".join(location.leading_comments.split())
        for location in proto.source_code_info.location
        if len(location.path) == 2 and location.path[0] == 4  # field 4 of a file: its messages
    }


EVENT_TYPES: Mapping[str, EventType] = MappingProxyType(_types())
SERVICES: tuple[str, ...] = tuple(sorted({service for service, _ in names.PATTERNS.values()}))
AGGREGATES: tuple[str, ...] = tuple(sorted({found.aggregate for found in EVENT_TYPES.values()}))
