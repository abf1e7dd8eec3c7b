"""NATS subjects and streams of events.

`penstock.<project>.<service>.<kind>.<id>.<event>` for Penstock's own, `penstock.<project>.external.<source>.<…>` from
outside, in a stream of its own: a flood from outside drops nothing of ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock import names
from penstock.events.registry import AGGREGATES, SERVICES, event_token

STREAM = "PENSTOCK"
EXTERNAL_STREAM = "PENSTOCK_EXTERNAL"
REPLAY_STREAM = "PENSTOCK_REPLAY"

STREAM_SUBJECTS = tuple(f"penstock.*.{service}.>" for service in SERVICES)
EXTERNAL_SUBJECTS = ("penstock.*.external.>",)
REPLAY_SUBJECTS = ("penstock-replay.>",)


def subject_of(resource: str, type: str) -> str:
    """Where an event of a resource is published."""
    name = names.parse(resource)
    return f"penstock.{name.project}.{name.service}.{name.kind}.{name.id}.{event_token(type, name.kind)}"


def replay_subject(consumer: str, resource: str, type: str) -> str:
    """Where an event is published again for one projection."""
    name = names.parse(resource)
    return f"penstock-replay.{name.service}.{consumer}.{subject_of(resource, type).removeprefix('penstock.')}"


def replay_filter(consumer: str) -> str:
    """What a projection listens to for replays."""
    return f"penstock-replay.*.{consumer}.>"


def kind_filters(kinds: Sequence[str] | None) -> list[str]:
    """The subjects of whole kinds (`training.run`); None means all. Raises ValueError for an unknown one.

    Only whole kinds have contiguous sequences.
    """
    for kind in kinds or ():
        if kind not in AGGREGATES:
            raise ValueError(f"no aggregate '{kind}' emits events: use one of {', '.join(AGGREGATES)}")
    return [f"penstock.*.{kind}.>" for kind in kinds] if kinds else list(STREAM_SUBJECTS)


def project_filters(project: str | None) -> list[str]:
    """The subjects of one project's own events; None means all projects."""
    return [f"penstock.{project or '*'}.{service}.>" for service in SERVICES]


def external_filter(project: str | None) -> str:
    """The subjects of events from outside."""
    return f"penstock.{project or '*'}.external.>"
