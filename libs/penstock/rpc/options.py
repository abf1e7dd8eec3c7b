"""Channel and server settings that both ends must agree on, and the retries of calls that may be repeated.

Base install only: the SDK opens its channels with these too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_METADATA_BYTES = 32 * 1024
DEFAULT_TIMEOUT_SECONDS = 30.0
MESSAGE_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
# At most 5 attempts over about 5 seconds: as long as a service takes to come back.
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "3s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_READS = ("Get", "List")


def channel_options(services: Iterable[str]) -> list[tuple[str, Any]]:
    """Options of a channel over which `services` (full names, their modules imported) are called."""
    return [
        *MESSAGE_OPTIONS,
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # By default a channel waits up to two minutes before it looks again for a server that was down.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 10_000),  # in fact the time that one connect may take
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", service_config(services)),
    ]


def service_config(services: Iterable[str]) -> str:
    """The gRPC service config that retries, on UNAVAILABLE, the calls that may be repeated."""
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    methods = [
        {"service": service, "method": method.name}
        for service in services
        for method in pool.FindServiceByName(service).methods
        if is_idempotent(method)
    ]
    if not methods:
        return "{}"
    return json.dumps({"methodConfig": [{"name": methods, "retryPolicy": _RETRY_POLICY}]})


def is_idempotent(method: MethodDescriptor) -> bool:
    """Whether a call may be sent twice: a standard read, or one that carries a request id (which channels fill in)."""
    return method.name.startswith(_READS) or "request_id" in method.input_type.fields_by_name
