"""The rules of the AIPs that the API keeps, held against every rpc and message that there is, whoever adds one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from penstock.rpc.masks import field_behaviour
from penstock.runtime.host import api_services

OUTPUT_ONLY, IDENTIFIER = field_behavior_pb2.OUTPUT_ONLY, field_behavior_pb2.IDENTIFIER
WITHOUT_REQUEST_ID = {"CreateCodeArchive": "an archive is named by its digest: the same bytes are the same archive"}


def _methods() -> list[MethodDescriptor]:
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    return [method for service in api_services() for method in pool.FindServiceByName(service).methods]


METHODS = _methods()
NAMES = {method.name for method in METHODS}


def _messages(methods: list[MethodDescriptor]) -> dict[str, Descriptor]:
    """Every message that a request or an answer holds, by full name."""
    found: dict[str, Descriptor] = {}
    waiting = [message for method in methods for message in (method.input_type, method.output_type)]
    while waiting:
        message = waiting.pop()
        if message.full_name not in found and message.full_name.startswith("penstock."):
            found[message.full_name] = message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return found


def _is_resource(message: Descriptor) -> bool:
    name = message.fields_by_name.get("name")
    return name is not None and IDENTIFIER in field_behaviour(name)


def without_request_id(methods: list[MethodDescriptor]) -> list[str]:
    """Creations that cannot be sent again (AIP-155)."""
    creates = [method for method in methods if method.name.startswith("Create")]
    return [m.name for m in creates if "request_id" not in m.input_type.fields_by_name]


def without_mask(methods: list[MethodDescriptor]) -> list[str]:
    """Updates that cannot say what they change (AIP-134)."""
    updates = [method for method in methods if method.name.startswith("Update")]
    found = [(method, method.input_type.fields_by_name.get("update_mask")) for method in updates]
    return [
        method.name
        for method, mask in found
        if mask is None or mask.message_type is None or mask.message_type.full_name != "google.protobuf.FieldMask"
    ]


def listed_and_not_got(methods: list[MethodDescriptor]) -> list[str]:
    """Resources that a list shows and that cannot be read by their name (AIP-131)."""
    got = {m.output_type.full_name for m in methods if m.name.startswith("Get")}
    return [resource for resource in sorted(_listed(methods)) if resource not in got]


def _listed(methods: list[MethodDescriptor]) -> Iterator[str]:
    for method in methods:
        if method.name.startswith("List"):
            for field in method.output_type.fields:
                if field.is_repeated and field.message_type is not None and _is_resource(field.message_type):
                    yield field.message_type.full_name


def without_route(methods: list[MethodDescriptor]) -> list[str]:
    """Rpcs that REST does not reach."""
    routes: list[Any] = [m.GetOptions().Extensions[annotations_pb2.http] for m in methods]  # type: ignore[index]
    return [method.name for method, route in zip(methods, routes, strict=True) if not route.WhichOneof("pattern")]


def etags_for_nothing(methods: list[MethodDescriptor]) -> list[str]:
    """Resources whose etag looks as if it could be given back, though no request takes it (AIP-154)."""
    taken = {
        field.message_type.full_name
        for method in methods
        if method.name.startswith(("Update", "Delete"))
        for field in method.input_type.fields
        if field.message_type is not None
    }
    found = []
    for name, message in sorted(_messages(methods).items()):
        etag = message.fields_by_name.get("etag")
        if (
            etag is not None
            and _is_resource(message)
            and name not in taken
            and OUTPUT_ONLY not in field_behaviour(etag)
        ):
            found.append(name)
    return found


def written_by_the_server_and_not_marked(methods: list[MethodDescriptor]) -> list[str]:
    """Fields of resources that no request holds, so that only the server writes them (AIP-203)."""
    asked = _messages_of_requests(methods)
    return [
        f"{name}.{field.name}"
        for name, message in sorted(_messages(methods).items())
        if _is_resource(message) and name not in asked
        for field in message.fields
        if not {OUTPUT_ONLY, IDENTIFIER} & field_behaviour(field)
    ]


def _messages_of_requests(methods: list[MethodDescriptor]) -> set[str]:
    found: set[str] = set()
    waiting = [field.message_type for method in methods for field in method.input_type.fields]
    while waiting:
        message = waiting.pop()
        if message is not None and message.full_name not in found:
            found.add(message.full_name)
            # What is output only within a request is not asked for by it.
            waiting += [field.message_type for field in message.fields if OUTPUT_ONLY not in field_behaviour(field)]
    return found


RULES = [
    without_mask, listed_and_not_got, without_route, etags_for_nothing, written_by_the_server_and_not_marked,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_every_rpc_keeps_the_rule(rule: object) -> None:
    assert rule(METHODS) == []  # type: ignore[operator]


def test_every_creation_can_be_sent_again_but_those_that_need_no_id_for_it() -> None:
    assert sorted(without_request_id(METHODS)) == sorted(WITHOUT_REQUEST_ID)


def test_all_there_is_was_looked_at() -> None:
    assert len(METHODS) > 80
    assert {"CreateToken", "UpdatePipeline", "GetTrial", "DeleteDraft"} <= NAMES
    assert {"penstock.api.serving.v1.Endpoint", "penstock.api.pipeline.v1.StepRun"} <= set(_messages(METHODS))


BAD = """
name: "bad.proto" package: "penstock.bad" syntax: "proto3" dependency: "google/api/field_behavior.proto"
message_type { name: "Thing"
  field {
    name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING options { [google.api.field_behavior]: IDENTIFIER }
  }
  field { name: "etag" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
}
message_type { name: "ThingRequest" field { name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING } }
message_type { name: "Things"
  field { name: "things" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".penstock.bad.Thing" }
}
service { name: "BadService"
  method { name: "CreateThing" input_type: ".penstock.bad.ThingRequest" output_type: ".penstock.bad.Thing" }
  method { name: "UpdateThing" input_type: ".penstock.bad.ThingRequest" output_type: ".penstock.bad.Thing" }
  method { name: "ListThings" input_type: ".penstock.bad.ThingRequest" output_type: ".penstock.bad.Things" }
}
"""


def test_each_rule_finds_what_breaks_it() -> None:
    """The control: an API that keeps none of them."""
    default = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    pool: Any = DescriptorPool()
    for name in ("google/protobuf/descriptor.proto", "google/api/field_behavior.proto"):
        pool.AddSerializedFile(default.FindFileByName(name).serialized_pb)
    pool.Add(text_format.Parse(BAD, descriptor_pb2.FileDescriptorProto()))
    methods = list(pool.FindServiceByName("penstock.bad.BadService").methods)
    assert without_request_id(methods) == ["CreateThing"]
    assert without_mask(methods) == ["UpdateThing"]
    assert listed_and_not_got(methods) == ["penstock.bad.Thing"]
    assert without_route(methods) == ["CreateThing", "UpdateThing", "ListThings"]
    assert etags_for_nothing(methods) == ["penstock.bad.Thing"]
    assert written_by_the_server_and_not_marked(methods) == ["penstock.bad.Thing.etag"]
