"""Domain errors on the wire: the one table between `penstock.errors` and gRPC status, in both directions.

A status carries google.rpc details: ErrorInfo (domain `penstock`, reason, metadata), BadRequest for fields, RetryInfo
where trying again may help. Needs grpcio and googleapis-common-protos only, so that the SDK can read what it gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

import grpc
from google.rpc import error_details_pb2, status_pb2

from penstock.errors import (
    AlreadyExists,
    Conflict,
    DataCorrupt,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PenstockError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "penstock"
DETAILS_KEY = "grpc-status-details-bin"
# Trailers are limited (8 KiB by default), and the message travels twice.
MAX_MESSAGE_CHARS = 1500
MAX_VIOLATIONS = 10
MAX_VIOLATION_CHARS = 300
RETRY_SECONDS = 1


class DeadlineExceeded(Unavailable):
    """The answer did not come in time; whether the work was done is unknown."""


CODES: dict[type[PenstockError], grpc.StatusCode] = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Conflict: grpc.StatusCode.ABORTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DataCorrupt: grpc.StatusCode.DATA_LOSS,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# What gRPC itself or another implementation may answer, beside the codes above.
_FOREIGN: dict[grpc.StatusCode, type[PenstockError]] = {
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.UNIMPLEMENTED: FailedPrecondition,
}
_CLASSES = {code: kind for kind, code in CODES.items()} | _FOREIGN
_CODE_OF_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def code_of(error: PenstockError) -> grpc.StatusCode:
    """The gRPC code of a domain error: that of its class or of the nearest base that has one."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def reason_of(error: PenstockError) -> str:
    """The reason in ErrorInfo: the class name in UPPER_SNAKE_CASE."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).upper()


def to_status(error: PenstockError) -> status_pb2.Status:
    """The google.rpc.Status of a domain error, cut to what fits into trailers."""
    status = status_pb2.Status(code=code_of(error).value[0], message=_cut(error.message, MAX_MESSAGE_CHARS))
    info = error_details_pb2.ErrorInfo(reason=reason_of(error), domain=DOMAIN)
    info.metadata.update({key: _cut(value, MAX_VIOLATION_CHARS) for key, value in error.metadata.items()})
    status.details.add().Pack(info)
    if error.violations:
        request = error_details_pb2.BadRequest()
        for violation in error.violations[:MAX_VIOLATIONS]:
            text = _cut(violation.description, MAX_VIOLATION_CHARS)
            request.field_violations.add(field=_cut(violation.field, MAX_VIOLATION_CHARS), description=text)
        status.details.add().Pack(request)
    if isinstance(error, Unavailable):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = RETRY_SECONDS
        status.details.add().Pack(retry)
    return status


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def internal_status(incident: str) -> status_pb2.Status:
    """The status of an unknown error: a fixed message, and the incident id under which the log has everything."""
    message = f"Something went wrong inside Penstock. The service's log has the details under incident {incident}."
    status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=message)
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"incident": incident})
    status.details.add().Pack(info)
    return status


def status_code(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC code in a google.rpc.Status."""
    return _CODE_OF_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)


def from_status(status: status_pb2.Status) -> PenstockError:
    """The domain error that a google.rpc.Status stands for."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(bad)
    violations = [FieldViolation(v.field, v.description) for v in bad.field_violations]
    kind = _CLASSES.get(status_code(status), PenstockError)
    return kind(status.message, violations=violations, metadata=dict(info.metadata))


def from_rpc_error(error: grpc.RpcError) -> PenstockError:
    """The domain error behind what a call raised, synchronous or not. Never raises.

    Without details of ours (the peer is down, or is no Penstock) the message says what to look at.
    """
    if not isinstance(error, grpc.Call) and not hasattr(error, "trailing_metadata"):
        return Unavailable(f"The call failed before it was sent: {error}")
    for key, value in cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    code, details = error.code(), error.details() or "no details"
    if code is grpc.StatusCode.UNAVAILABLE or _was_cut(code, details):
        return Unavailable(f"The platform does not answer ({details}). Is it running? `penstock status` tells.")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("No answer came in time. The work may still be going on: look before trying again.")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return FailedPrecondition(f"The platform does not know this call ({details}): it may be an older version.")
    return _CLASSES.get(code, PenstockError)(details)


def _was_cut(code: grpc.StatusCode, details: str) -> bool:
    """Whether an answer had begun when its server died: a proxy then resets the stream, and gRPC knows no status."""
    return code in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL) and "RST_STREAM" in details
