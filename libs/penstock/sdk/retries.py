"""Which calls are sent again when a platform does not answer, and for how long: servers come back within seconds."""

from __future__ import annotations

from functools import cache

import grpc
from google.api import annotations_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from penstock.errors import PenstockError, Unavailable
from penstock.rpc.errors import DeadlineExceeded
from penstock.rpc.options import is_idempotent

PATIENCE = 45.0  # seconds for which a platform that is there is asked again
DELAYS = (0.1, 0.2, 0.4, 0.8, 1.0)  # seconds between attempts
# An update says how things shall be; bytes of an import carry their offset, and are passed over if they are there.
_REPEATABLE = ("Update", "WriteImport")


@cache
def repeatable(path: str) -> bool:
    """Whether the call of a method (`/package.Service/Method`) may be sent twice without doing its work twice."""
    try:
        method: MethodDescriptor = descriptor_pool.Default().FindMethodByName(  # type: ignore[no-untyped-call]
            path.strip("/").replace("/", ".")
        )
    except KeyError:
        return False
    reads = bool(method.GetOptions().Extensions[annotations_pb2.http].get)  # type: ignore[index]
    return reads or is_idempotent(method) or method.name.startswith(_REPEATABLE)


def may_pass(error: PenstockError) -> bool:
    """Whether the same call may work in a moment. A deadline that is over was the caller's patience."""
    return isinstance(error, Unavailable) and not isinstance(error, DeadlineExceeded)


def answered(error: grpc.RpcError) -> bool:
    """Whether a failure came from a server, if only from the edge: then there is a platform."""
    return any(getattr(error, part, tuple)() for part in ("initial_metadata", "trailing_metadata"))
