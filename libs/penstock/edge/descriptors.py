"""Protocol descriptors for Envoy: our API's with what errors need, and as much of KServe's as names a model.

The descriptor set comes from `make proto`; Envoy turns REST into gRPC with it. KServe's messages are described here, so
that the platform need not carry a client library for two field numbers.
"""

from __future__ import annotations

from google.protobuf import any_pb2, descriptor, descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from penstock.errors import InvalidArgument

KSERVE_SERVICE = "inference.GRPCInferenceService"
# Method -> the field of its request that names the model, with its number. What is missing here is not reachable, such
# as Triton's own ModelStreamInfer: a stream that is open would outlive its token, and our models answer once a request.
MODEL_FIELDS = {
    "ModelInfer": ("model_name", 1),
    "ModelReady": ("name", 1),
    "ModelMetadata": ("name", 1),
    "ModelConfig": ("name", 1),
}
PREDICTING = "ModelInfer"


def complete(content: bytes) -> FileDescriptorSet:
    """Parse a descriptor set and add google.rpc.Status and the error details: without them REST errors lose theirs."""
    try:
        described = FileDescriptorSet.FromString(content)
    except DecodeError as error:
        raise InvalidArgument("The descriptor set cannot be parsed.", field="descriptor_set") from error
    known = {file.name for file in described.file}
    for module in (any_pb2, status_pb2, error_details_pb2):
        _add(described, known, module.DESCRIPTOR)
    return described


def _add(described: FileDescriptorSet, known: set[str], file: descriptor.FileDescriptor) -> None:
    if file.name in known:
        return
    known.add(file.name)
    for dependency in file.dependencies:
        _add(described, known, dependency)
    file.CopyToProto(described.file.add())  # type: ignore[no-untyped-call]


def services_of(described: FileDescriptorSet) -> tuple[str, ...]:
    """The full names of all services in a descriptor set."""
    return tuple(sorted(f"{file.package}.{s.name}" for file in described.file for s in file.service))


def kserve() -> FileDescriptorSet:
    """KServe v2's gRPC service, with only the fields that name the model: the filter skips what it does not know."""
    file = FileDescriptorProto(name="penstock_kserve.proto", package="inference", syntax="proto3")
    service = file.service.add(name=KSERVE_SERVICE.rsplit(".", 1)[1])
    file.message_type.add(name="Response")
    for method, (field, number) in MODEL_FIELDS.items():
        message = file.message_type.add(name=f"{method}Request")
        message.field.add(
            name=field, number=number, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
        )
        service.method.add(name=method, input_type=f".inference.{method}Request", output_type=".inference.Response")
    return descriptor_pb2.FileDescriptorSet(file=[file])
