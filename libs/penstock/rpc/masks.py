"""Field masks of update methods (AIP-134): which fields of a patch replace those of a resource."""

from __future__ import annotations

from typing import Any, TypeVar

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from penstock.errors import InvalidArgument

M = TypeVar("M", bound=Message)
_READ_ONLY = {field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER}


def apply_field_mask(mask: FieldMask, patch: M, current: M, *, field: str = "update_mask") -> M:
    """A copy of `current` with the masked fields taken from `patch`.

    An empty mask means every field that `patch` populates, `*` means all fields. Output-only fields and the name keep
    their value. Raises InvalidArgument for a path that does not exist and for an immutable field that would change.
    """
    paths = list(mask.paths) or [descriptor.name for descriptor, _ in patch.ListFields()]
    if paths == ["*"]:
        paths = [descriptor.name for descriptor in current.DESCRIPTOR.fields]
    changed = type(current)()
    changed.CopyFrom(current)
    for path in paths:
        _copy(path.split("."), patch, changed, path, field)
    return changed


def _copy(steps: list[str], source: Message, target: Message, path: str, mask_field: str) -> None:
    step = _field(target, steps[0], path, mask_field)
    behaviour = field_behaviour(step)
    if behaviour & _READ_ONLY:
        return
    if len(steps) > 1:
        if step.message_type is None or step.is_repeated:
            raise InvalidArgument(f"'{path}' goes into '{steps[0]}', which has no fields of its own.", field=mask_field)
        _copy(steps[1:], getattr(source, step.name), getattr(target, step.name), path, mask_field)
        return
    before = _value(target, step)
    if field_behavior_pb2.IMMUTABLE in behaviour and before != _value(source, step):
        raise InvalidArgument(f"'{path}' cannot be changed after the resource was created.", field=path)
    _replace(source, target, step)


def field_behaviour(field: FieldDescriptor) -> frozenset[int]:
    """The google.api.field_behavior values of a field (AIP-203)."""
    extensions: Any = field.GetOptions().Extensions
    return frozenset(extensions[field_behavior_pb2.field_behavior])


def _field(message: Message, name: str, path: str, mask_field: str) -> FieldDescriptor:
    descriptor = message.DESCRIPTOR
    found: FieldDescriptor | None = descriptor.fields_by_name.get(name)
    if found is None:
        known = ", ".join(sorted(descriptor.fields_by_name))
        raise InvalidArgument(f"'{path}' is not a field of {descriptor.name}. It has: {known}.", field=mask_field)
    return found


def _value(message: Message, field: FieldDescriptor) -> object:
    if field.has_presence and not message.HasField(field.name):
        return None
    return getattr(message, field.name)


def _replace(source: Message, target: Message, field: FieldDescriptor) -> None:
    """Set one field of `target` to what it is in `source`, unset included; MergeFrom copies every kind of field."""
    target.ClearField(field.name)
    only = type(source)()
    only.CopyFrom(source)
    for other, _ in source.ListFields():
        if other.name != field.name:
            only.ClearField(other.name)
    target.MergeFrom(only)
