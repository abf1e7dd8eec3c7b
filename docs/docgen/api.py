"""docs/reference/api.md: every service, method, message and enum, from the descriptor set."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, MethodDescriptorProto

from docgen import protos
from docgen.markdown import anchor, item, paragraph
from docgen.markdown import page as make_page
from docgen.protos import Source

_INTRODUCTION = """The API is gRPC, and REST with JSON under the same port: each method's route is given,
and Envoy turns the one into the other. Field names in JSON are lowerCamelCase, 64-bit numbers are text,
unknown fields of a JSON body are ignored. All methods are shown by gRPC reflection too."""

_ACCESS = """**Access** is the least that a token must have: `viewer`, `editor` and `admin` are roles in
the project that the request names; `platform` is the token of the home; `internal` and `runner` are for
Penstock's own services and for the job whose token names the resource. Without a token the answer is 401
(UNAUTHENTICATED), with one that may not 403 (PERMISSION_DENIED)."""

_CONVENTIONS = """Lists take `page_size` (50 unless set, at most 1,000) and `page_token`, which is good for the
same request only. `request_id` makes a creation idempotent: the same caller with the same id gets the same
resource. An update changes the fields that `update_mask` names; those that the resource in the request sets,
without a mask; all that can be changed, with the mask `*`. `etag` changes with the resource: a request that takes
one, and is given it, is refused (ABORTED, 409) if the resource has changed since it was read. Fields that are
`output only` are written by the server; what a request says in them is ignored. Methods named `Watch…` stream the
resource at once and at each change, until it has ended. Errors carry `google.rpc.ErrorInfo`, and `BadRequest`
with the fields that are wrong."""


def page() -> str:
    """The page."""
    blocks = [paragraph(_ACCESS), paragraph(_CONVENTIONS), _contents()]
    for source, index, _ in protos.services():
        blocks += _service(source, index)
    for source in protos.sources():
        blocks += _messages(source)
    return make_page("API", _INTRODUCTION, *blocks)


def _contents() -> str:
    lines = []
    for source, index, service in protos.services():
        full = f"{source.file.package}.{service.name}"
        lines.append(item(f"[{service.name}]({anchor(full)}): {source.comment(6, index)}"))
    return "\n".join(lines)


def _service(source: Source, index: int) -> list[str]:
    service = source.file.service[index]
    blocks = [f"## {source.file.package}.{service.name}", paragraph(source.comment(6, index))]
    for number, method in enumerate(service.method):
        blocks += _method(method, source.comment(6, index, 2, number))
    return blocks


def _method(method: MethodDescriptorProto, comment: str) -> list[str]:
    verb, path, body = protos.route(method)
    stream = "stream of " if method.server_streaming else ""
    lines = [
        item(f"`{verb} {path}`" + (f", body: `{body}`" if body else "")),
        item(f"{_short(method.input_type)} → {stream}{_short(method.output_type)}"),
        item(f"access: {protos.access(method)}"),
    ]
    return [f"### {method.name}", paragraph(comment), "\n".join(lines)]


def _short(type_name: str) -> str:
    return f"`{type_name.removeprefix('.').removeprefix('penstock.api.').removeprefix('google.protobuf.')}`"


def _messages(source: Source) -> list[str]:
    # The bodies of events have a page of their own.
    told = [
        (number, message)
        for number, message in enumerate(source.file.message_type)
        if source.file.name != "penstock/api/event/v1/events.proto" or message.name == "Event"
    ]
    blocks = [f"## Messages of {source.file.package}"] if told else []
    for number, message in told:
        blocks += _message(source, message, (4, number))
    for number, enum in enumerate(source.file.enum_type):
        blocks += [f"### {enum.name}", _enum(source, enum, (5, number))]
    return blocks


def _message(source: Source, message: DescriptorProto, path: tuple[int, ...]) -> list[str]:
    fields = [
        item(field_line(message, number, source.comment(*path, 2, number))) for number in range(len(message.field))
    ]
    blocks = [f"### {message.name}", paragraph(source.comment(*path))]
    blocks.append("\n".join(fields) if fields else "No fields.")
    for number, enum in enumerate(protos.enums(message)):
        blocks.append(f"`{enum.name}`:\n\n{_enum(source, enum, (*path, 4, number))}")
    return [block for block in blocks if block]


def field_line(message: DescriptorProto, number: int, comment: str) -> str:
    """A field's name, type, behaviour and comment."""
    field = message.field[number]
    facts = [protos.type_name(message, field), *protos.behaviours(field)]
    return f"`{field.name}` ({', '.join(facts)})" + (f": {comment}" if comment else "")


def _enum(source: Source, enum: EnumDescriptorProto, path: tuple[int, ...]) -> str:
    lines = []
    for number, value in enumerate(enum.value):
        comment = source.comment(*path, 2, number)
        if value.number or comment:
            lines.append(item(f"`{value.name}`" + (f": {comment}" if comment else "")))
    return "\n".join(lines)
