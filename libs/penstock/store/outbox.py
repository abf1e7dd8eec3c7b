"""What a write says has happened: events, kept in the written document until a relay has published them.

An entry is stored as JSON text: nx-27017 turns the objects of an array into text at the first `$push` anyway, and
text also holds whatever keys an event's data has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from penstock import names
from penstock.errors import InvalidArgument
from penstock.store.codec import format_time, now

MAX_EVENT = 1_000_000  # characters: one that NATS refuses would hold up its resource for ever


class Fact(Protocol):
    """An event to be: its type (without prefix and version) and its data as JSON."""

    @property
    def type(self) -> str: ...

    @property
    def data(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Cause:
    """Why something is done: the chain it belongs to, the event or request that directly caused it, and the trace."""

    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""


# Set by consumers and by the gRPC server, copied into every event that is then written.
current_cause: ContextVar[Cause | None] = ContextVar("penstock_cause", default=None)


def entries(resource: str, sequence: int, facts: Sequence[Fact]) -> list[str]:
    """Outbox entries for `facts`, numbered after `sequence`.

    The id of the aggregate must be its resource name; raises InvalidArgument otherwise, and for too large events.
    """
    if not facts:
        return []
    names.parse(resource)
    cause = current_cause.get() or Cause()
    time = format_time(now())
    return [_entry(resource, sequence + n, fact, cause, time) for n, fact in enumerate(facts, 1)]


def _entry(resource: str, sequence: int, fact: Fact, cause: Cause, time: str) -> str:
    id = f"{resource}@{sequence}"
    fields = {
        "id": id,
        "type": fact.type,
        "subject": resource,
        "sequence": sequence,
        "time": time,
        "data": dict(fact.data),
        # Without a cause, the event begins a chain of its own.
        "correlation_id": cause.correlation_id or id,
        "causation_id": cause.causation_id,
        "traceparent": cause.traceparent,
    }
    entry = json.dumps(fields, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if len(entry) > MAX_EVENT:
        raise InvalidArgument(f"A {fact.type} event of {len(entry)} bytes is too large: name what it is about instead.")
    return entry
