"""The events of serving, made from the endpoint that they are about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from penstock.api.event.v1 import events_pb2 as events

if TYPE_CHECKING:
    from services.serving.model import Endpoint, Member, Revision


def revision_ready(endpoint: Endpoint, revision: Revision, previous: str) -> events.RevisionReady:
    """A revision has all the traffic."""
    return events.RevisionReady(
        endpoint=endpoint.name,
        revision=endpoint.revision_name(revision.number),
        model_version=revision.model_version,
        previous=previous,
    )


def revision_failed(endpoint: Endpoint, revision: Revision) -> events.RevisionFailed:
    """A revision was given up, and has no traffic."""
    return events.RevisionFailed(
        endpoint=endpoint.name,
        revision=endpoint.revision_name(revision.number),
        model_version=revision.model_version,
        reason=revision.reason,
    )


def traffic_changed(endpoint: Endpoint, generation: int, shares: Iterable[Member]) -> events.TrafficChanged:
    """The edge divides the requests anew."""
    return events.TrafficChanged(
        endpoint=endpoint.name,
        generation=generation,
        weights={endpoint.revision_name(member.revision): member.weight for member in shares},
    )
