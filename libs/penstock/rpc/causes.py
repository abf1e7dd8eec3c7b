"""Why a call is made: read from its metadata on the way in, sent along on the way out.

A chain that began with an event goes on through the calls that its consumers make. Only services may continue a chain;
everybody else's call begins one, under the request id that the edge gave it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from penstock.rpc.caller import SERVICE, Caller
from penstock.store.outbox import Cause, current_cause

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
CORRELATION_ID = "x-penstock-correlation-id"
CAUSATION_ID = "x-penstock-causation-id"
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")


def request_id_of(metadata: Mapping[str, str]) -> str:
    """The id of a call: what the edge sent as x-request-id, or a new one."""
    sent = metadata.get(REQUEST_ID, "")
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)


def cause_of(metadata: Mapping[str, str], caller: Caller | None, request_id: str) -> Cause:
    """The cause that everything done in this call has."""
    trace = metadata.get(TRACEPARENT, "")
    if not _TRACEPARENT.fullmatch(trace):
        trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    correlation, causation = request_id, f"request:{request_id}"
    if caller is not None and caller.role == SERVICE:
        correlation = metadata.get(CORRELATION_ID) or correlation
        causation = metadata.get(CAUSATION_ID) or causation
    return Cause(correlation_id=correlation, causation_id=causation, traceparent=trace)


def outgoing() -> list[tuple[str, str]]:
    """The metadata that lets a call to another service continue the current chain."""
    cause = current_cause.get()
    if cause is None:
        return []
    entries = (
        (CORRELATION_ID, cause.correlation_id),
        (CAUSATION_ID, cause.causation_id),
        (TRACEPARENT, cause.traceparent),
    )
    return [(key, value) for key, value in entries if value]
