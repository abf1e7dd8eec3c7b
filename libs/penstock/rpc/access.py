"""What each rpc demands, read from its descriptor: the access option, and where a request names its project.

So authorization is generic: a servicer cannot forget it, and a server does not start with a method without the option.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from penstock import names
from penstock.api.auth.v1 import access_pb2
from penstock.errors import InvalidArgument, PenstockError
from penstock.rpc.masks import field_behaviour

_PRIMARY = ("name", "parent", "project", "resource", "run")
_OPEN = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
_DEPTH = 4
MAX_TEXT = 64 << 10  # characters of one text; a page of resources must fit into one message
ANY_PROJECT = "-"


class Access(IntEnum):
    """The least that a caller's token must have; see penstock/api/auth/v1/access.proto."""

    UNSPECIFIED = 0
    PUBLIC = 1
    VIEWER = 2
    EDITOR = 3
    ADMIN = 4
    PLATFORM = 5
    INTERNAL = 6
    RUNNER = 7


IN_PROJECT = frozenset({Access.VIEWER, Access.EDITOR, Access.ADMIN, Access.RUNNER})
WRITES = frozenset({Access.EDITOR, Access.ADMIN, Access.PLATFORM})
Path = tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """One rpc: its path on the wire (`/package.Service/Method`) and what a call of it must satisfy.

    `primary` are the fields that name the resource, best first; `references` are all that may hold a name.
    """

    path: str
    service: str
    name: str
    access: Access
    primary: tuple[Path, ...]
    references: tuple[Path, ...]

    @property
    def full_name(self) -> str:
        """`package.Service.Method`, as the audit log and the metrics have it."""
        return f"{self.service}.{self.name}"

    def resource(self, request: Message) -> str:
        """The resource or parent that the request is about, or "" if it names none."""
        return next((value for value in (_get(request, path) for path in self.primary) if value), "")

    def projects(self, request: Message) -> Iterator[str]:
        """The projects of all resource names in the request, the primary one first.

        Raises InvalidArgument if the primary field is empty or no resource name, or a text is far too long.
        """
        if self.access in IN_PROJECT:
            yield _project(self.resource(request), self.primary[0])
        for path in self.references:
            value = _get(request, path)
            if len(value) > MAX_TEXT:
                raise InvalidArgument(
                    f"This text has {len(value)} characters; at most {MAX_TEXT} are taken.", field=".".join(path)
                )
            if _is_name(value):
                yield _project(value, path)


class MissingAccess(PenstockError):
    """A method says not (or says wrongly) who may call it, so its server must not start."""


def methods_of(services: Iterable[str]) -> dict[str, Method]:
    """The methods of services (full names), by wire path. Raises MissingAccess for one that is not safe to serve."""
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    found = {}
    for service in services:
        if service in _OPEN:
            continue
        for method in pool.FindServiceByName(service).methods:
            found[f"/{service}/{method.name}"] = _method(service, method)
    return found


def _method(service: str, method: MethodDescriptor) -> Method:
    access = Access(method.GetOptions().Extensions[access_pb2.access])
    full_name = f"{service}.{method.name}"
    if access is Access.UNSPECIFIED:
        raise MissingAccess(f"{full_name} has no option (penstock.api.auth.v1.access): say who may call it.")
    primary = tuple(_primary_paths(method.input_type))
    if access in IN_PROJECT and not primary:
        raise MissingAccess(
            f"{full_name} is for members of a project, but no field of its request names one: add `name` or `parent`."
        )
    references = tuple(_string_paths(method.input_type)) if access is not Access.PUBLIC else ()
    return Method(f"/{service}/{method.name}", service, method.name, access, primary, references)


def _primary_paths(message: Descriptor) -> Iterator[Path]:
    for name in _PRIMARY:
        if _is_string(message.fields_by_name.get(name)):
            yield (name,)
    for field in message.fields:
        if field.message_type is not None and not field.is_repeated and _is_resource(field.message_type):
            yield (field.name, "name")


def _is_resource(message: Descriptor) -> bool:
    """Whether a message is a resource: it has a `name` that is marked as its identifier."""
    name = message.fields_by_name.get("name")
    if not _is_string(name):
        return False
    return name is not None and field_behavior_pb2.IDENTIFIER in field_behaviour(name)


def _string_paths(message: Descriptor, prefix: Path = ()) -> Iterator[Path]:
    """All single strings in a request: what a reference to another project could hide in. Repeated ones are data."""
    for field in message.fields:
        if field.is_repeated:
            continue
        if _is_string(field):
            yield (*prefix, field.name)
        elif field.message_type is not None and len(prefix) < _DEPTH and _is_ours(field.message_type):
            yield from _string_paths(field.message_type, (*prefix, field.name))


def _is_ours(message: Descriptor) -> bool:
    return str(message.full_name).startswith("penstock.")


def _is_string(field: FieldDescriptor | None) -> bool:
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _get(message: Message, path: Path) -> str:
    for step in path[:-1]:
        if not message.HasField(step):
            return ""
        message = getattr(message, step)
    value: str = getattr(message, path[-1])
    return value


def _is_name(text: str) -> bool:
    """Whether a text reads as a resource name; one that nearly does is for the servicer to refuse."""
    if not text.startswith("projects/"):
        return False
    try:
        names.parse(text)
    except InvalidArgument:
        return False
    return True


def _project(value: str, path: Path) -> str:
    field = ".".join(path)
    if not value:
        raise InvalidArgument(f"'{field}' is required: a resource name such as projects/{{project}}/…", field=field)
    if value == f"projects/{ANY_PROJECT}" or value.startswith(f"projects/{ANY_PROJECT}/"):
        return ANY_PROJECT
    if path == ("project",) and "/" not in value:
        return names.check_id(value, field)
    try:
        return names.project_of(value)
    except InvalidArgument as error:
        raise InvalidArgument(error.message, field=field) from error
