"""JSON schemas of proto messages, as they are in the bodies of events (proto-JSON)."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from docgen import protos
from docgen.protos import Source

Schema = dict[str, Any]
_NUMBER: Schema = {"oneOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]}
_WELL_KNOWN: dict[str, Schema] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Struct": {"type": "object"},
}
_SCALARS: dict[int, Schema] = {
    FieldDescriptorProto.TYPE_DOUBLE: _NUMBER,
    FieldDescriptorProto.TYPE_INT64: {"type": "string", "pattern": "^-?[0-9]+$"},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}


def message_schema(source: Source, number: int) -> Schema:
    """The schema of a top-level message of a file. All fields may be absent: then they have their default."""
    message = source.file.message_type[number]
    schema: Schema = {"type": "object"}
    if source.comment(4, number):
        schema["description"] = source.comment(4, number)
    properties = {}
    for index, field in enumerate(message.field):
        properties[_json_name(field)] = _field(message, field, source.comment(4, number, 2, index))
    return {**schema, "properties": properties}


def _json_name(field: FieldDescriptorProto) -> str:
    return field.json_name


def _field(message: DescriptorProto, field: FieldDescriptorProto, comment: str) -> Schema:
    described = {"description": comment} if comment else {}
    entry = protos.map_entry(message, field)
    if entry is not None:
        return {"type": "object", **described, "additionalProperties": _single(entry.field[1])}
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return {"type": "array", **described, "items": _single(field)}
    return {**_single(field), **described}


def _single(field: FieldDescriptorProto) -> Schema:
    schema = _WELL_KNOWN.get(field.type_name) if field.type_name else _SCALARS.get(field.type)
    if schema is None:
        raise ValueError(f"the body of an event has a field of a type that has no schema yet: {field.type_name}")
    return dict(schema)
