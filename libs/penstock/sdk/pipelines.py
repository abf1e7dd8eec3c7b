"""Pipelines from a YAML document (`kind: Pipeline`), as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from penstock import names
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb
from penstock.errors import InvalidArgument
from penstock.sdk.datasets import to_struct

if TYPE_CHECKING:
    from penstock.sdk.client import Client

ACTIONS = ("train", "tune", "evaluate", "deploy")
KNOWN = {"kind", "name", "description", "on", "steps", "max_recurrence", "paused"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: Any, field: str) -> Duration:
    """`500ms`, `2s`, `5m`, `1h`, `30d`, or a number of seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(str(value))
        if not match:
            raise InvalidArgument(
                f"{field}: '{value}' is not a duration such as 500ms, 2s, 5m, 1h or 30d.", field=field
            )
        seconds = float(match[1]) * _SECONDS[match[2]]
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


def parse_pipeline(client: Client, document: Any) -> pb.Pipeline:
    """The pipeline of a YAML document; raises InvalidArgument naming the field.

    `on` is the trigger (YAML reads a bare `on` as true; both spellings are taken), a step is
    `{id: …, train|tune|evaluate|deploy: {settings}, if: CEL}`.
    """
    if not isinstance(document, Mapping) or document.get("kind") != "Pipeline":
        raise InvalidArgument("The file must be a YAML mapping with `kind: Pipeline`.", field="kind")
    document = {("on" if key is True else str(key)): value for key, value in document.items()}
    unknown = sorted(set(document) - KNOWN)
    if unknown:
        raise InvalidArgument(f"Unknown field '{unknown[0]}'; known: {', '.join(sorted(KNOWN))}.", field=unknown[0])
    name = names.check_id(str(document.get("name", "")), "name")
    steps = document.get("steps")
    if not isinstance(steps, list) or not steps:
        raise InvalidArgument("A pipeline needs a list of `steps`.", field="steps")
    return pb.Pipeline(
        name=client.name("pipeline", name),
        description=str(document.get("description", "")),
        trigger=_trigger(document.get("on")),
        steps=[_step(step, f"steps[{index}]") for index, step in enumerate(steps)],
        max_recurrence=int(document.get("max_recurrence", 0)),
        paused=bool(document.get("paused", False)),
    )


def _trigger(on: Any) -> pb.Trigger:
    if not isinstance(on, Mapping) or not on.get("event"):
        raise InvalidArgument(
            "A pipeline needs `on: {event: TYPE}`, such as dataset.version.committed.", field="on.event"
        )
    trigger = pb.Trigger(event=str(on["event"]), filter=str(on.get("filter", "")))
    debounce = on.get("debounce")
    if debounce is not None:
        if not isinstance(debounce, Mapping) or set(debounce) != {"quiet", "max_wait"}:
            raise InvalidArgument("`on.debounce` must be {quiet: 2s, max_wait: 30s}.", field="on.debounce")
        trigger.debounce.quiet.CopyFrom(parse_duration(debounce["quiet"], "on.debounce.quiet"))
        trigger.debounce.max_wait.CopyFrom(parse_duration(debounce["max_wait"], "on.debounce.max_wait"))
    return trigger


def _step(step: Any, field: str) -> pb.Step:
    actions = [action for action in ACTIONS if isinstance(step, Mapping) and action in step]
    if len(actions) != 1 or set(step) - {"id", "if", actions[0]}:
        raise InvalidArgument(
            f"{field} must have an `id`, one of {', '.join(ACTIONS)}, and at most an `if`.", field=field
        )
    action = actions[0]
    settings = step[action] or {}
    if not isinstance(settings, Mapping):
        raise InvalidArgument(f"{field}.{action} must be a mapping of settings.", field=f"{field}.{action}")
    return pb.Step(
        id=str(step.get("id", action)),
        action=action,
        condition=str(step.get("if", "")),
        **{"with": to_struct(settings)},
    )
