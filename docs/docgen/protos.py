"""The descriptor set with its comments: what the API and event pages are read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from penstock.api.auth.v1 import access_pb2

# The order of the loop, not of the alphabet.
ORDER = ("project", "dataset", "training", "tuning", "evaluation", "serving", "pipeline", "event", "lineage")
_SCALARS = {
    FieldDescriptorProto.TYPE_DOUBLE: "double", FieldDescriptorProto.TYPE_FLOAT: "float",
    FieldDescriptorProto.TYPE_INT64: "int64", FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_BOOL: "bool", FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One proto file and the comments before its elements, by path."""

    file: FileDescriptorProto
    comments: dict[tuple[int, ...], str]

    def comment(self, *path: int) -> str:
        """The comment before an element."""
        return self.comments.get(path, "")


@cache
def sources() -> tuple[Source, ...]:
    """Penstock's protos, in the order of the loop."""
    packed = resources.files("penstock.api").joinpath("descriptors.binpb").read_bytes()
    files = [file for file in FileDescriptorSet.FromString(packed).file if _area(file) in ORDER]
    files.sort(key=lambda file: (ORDER.index(_area(file)), file.name))
    return tuple(Source(file, _comments(file)) for file in files)


def _area(file: FileDescriptorProto) -> str:
    words = file.package.split(".")
    return words[2] if words[:2] == ["penstock", "api"] else ""


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    located = file.source_code_info.location
    return {tuple(place.path): " ".join(place.leading_comments.split()) for place in located if place.leading_comments}


def services() -> Iterator[tuple[Source, int, ServiceDescriptorProto]]:
    """Each service with its file and index."""
    for source in sources():
        for index, service in enumerate(source.file.service):
            yield source, index, service


def route(method: MethodDescriptorProto) -> tuple[str, str, str]:
    """Verb, path and body of a method's HTTP route."""
    rule: Any = method.options.Extensions[annotations_pb2.http]  # type: ignore[index]
    verb = rule.WhichOneof("pattern") or ""
    return verb.upper(), getattr(rule, verb) if verb else "", rule.body


def access(method: MethodDescriptorProto) -> str:
    """Who may call a method: viewer, editor, …"""
    number = method.options.Extensions[access_pb2.access]
    return access_pb2.Access.Name(number).removeprefix("ACCESS_").lower()


def behaviours(field: FieldDescriptorProto) -> list[str]:
    """`required`, `output only`, …"""
    found: Any = field.options.Extensions[field_behavior_pb2.field_behavior]  # type: ignore[index]
    return [field_behavior_pb2.FieldBehavior.Name(b).lower().replace("_", " ") for b in found]


def map_entry(message: DescriptorProto, field: FieldDescriptorProto) -> DescriptorProto | None:
    """The entry type of a map field; None for any other field."""
    name = field.type_name.rsplit(".", 1)[-1]
    return next((n for n in message.nested_type if n.name == name and n.options.map_entry), None)


def type_name(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """A field's type as people say it."""
    entry = map_entry(message, field)
    if entry is not None:
        key, value = entry.field
        return f"map of {type_name(entry, key)} to {type_name(entry, value)}"
    text = _SCALARS.get(field.type) or field.type_name.removeprefix(".penstock.api.").removeprefix(".google.protobuf.")
    return f"list of {text}" if field.label == FieldDescriptorProto.LABEL_REPEATED else text


def enums(message: DescriptorProto) -> list[EnumDescriptorProto]:
    """The enums within a message."""
    return list(message.enum_type)
