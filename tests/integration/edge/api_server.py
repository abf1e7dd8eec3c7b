"""A service of ours as the edge sees one: a gRPC server with HTTP annotations, built from a descriptor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.api import annotations_pb2
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

PACKAGE = "penstock.api.demo.v1"
SERVICE = f"{PACKAGE}.DemoService"
# method -> (HTTP verb, path, body)
METHODS = {
    "GetThing": ("get", "/v1/{name=projects/*/things/*}", ""),
    "CreateThing": ("post", "/v1/{name=projects/*}/things", "thing"),
    "ArchiveThing": ("post", "/v1/{name=projects/*/things/*}:archive", "*"),
    "WatchThing": ("get", "/v1/{name=projects/*/things/*}:watch", ""),
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    text, number, message = (
        descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
        descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
    )
    file = descriptor_pb2.FileDescriptorProto(name="demo.proto", package=PACKAGE, syntax="proto3")
    file.dependency.extend(["google/api/annotations.proto"])
    thing = file.message_type.add(name="Thing")
    for index, (name, kind) in enumerate((("name", text), ("display_name", text), ("size", number)), 1):
        thing.field.add(name=name, number=index, type=kind, label=1)
    request = file.message_type.add(name="Request")
    request.field.add(name="name", number=1, type=text, label=1)
    request.field.add(name="thing", number=2, type=message, type_name=f".{PACKAGE}.Thing", label=1)
    service = file.service.add(name="DemoService")
    for name, (verb, path, body) in METHODS.items():
        method = service.method.add(
            name=name,
            input_type=f".{PACKAGE}.Request",
            output_type=f".{PACKAGE}.Thing",
            server_streaming=name[0] == "W",
        )
        rule: Any = method.options.Extensions[annotations_pb2.http]  # type: ignore[index]
        setattr(rule, verb, path)
        rule.body = body
    return file


def _imported(name: str) -> Any:
    return descriptor_pool.Default().FindFileByName(name)  # type: ignore[no-untyped-call]


def descriptor_set() -> bytes:
    """The descriptor set of the service and what it imports, without google.rpc: the edge must add that."""
    files = descriptor_pb2.FileDescriptorSet()
    for name in ("google/protobuf/descriptor.proto", "google/api/http.proto", "google/api/annotations.proto"):
        _imported(name).CopyToProto(files.file.add())
    files.file.append(_file())
    return files.SerializeToString()


_POOL: Any = descriptor_pool.DescriptorPool()
for _each in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set()).file:
    _POOL.Add(_each)
Thing: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.Thing"))
Request: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.Request"))


class ApiServer:
    """The server with the last metadata that it saw."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self.server = grpc.aio.server()
        handlers = {
            name: grpc.unary_stream_rpc_method_handler(self.watch, Request.FromString, Thing.SerializeToString)
            if name == "WatchThing"
            else grpc.unary_unary_rpc_method_handler(self.unary, Request.FromString, Thing.SerializeToString)
            for name in METHODS
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, self.server)
        self.checks = checks
        reflection.enable_server_reflection([SERVICE, reflection.SERVICE_NAME], self.server, pool=_POOL)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def start(self) -> None:
        await self.server.start()
        await self.checks.set("", health_pb2.HealthCheckResponse.SERVING)

    async def unary(self, request: Any, context: Any) -> Any:
        self.seen = {key: str(value) for key, value in context.invocation_metadata()}
        if request.name.endswith("missing"):
            await self.fail(context)
        return Thing(name=request.name, display_name=request.thing.display_name, size=request.thing.size)

    async def watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for size in range(1, 4):
            yield Thing(name=request.name, size=size)
            await asyncio.sleep(0.3)

    async def fail(self, context: Any) -> None:
        status = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="There is no such thing.")
        violation = error_details_pb2.BadRequest.FieldViolation(field="name", description="unknown")
        for detail in (
            error_details_pb2.ErrorInfo(reason="NOT_FOUND", domain="penstock.dev", metadata={"thing": "missing"}),
            error_details_pb2.BadRequest(field_violations=[violation]),
        ):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        trailer = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(grpc.StatusCode.NOT_FOUND, status.message, trailer)
