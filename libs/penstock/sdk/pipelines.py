"""Pipelines from a YAML document (`kind: Pipeline`), as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask

from penstock import names
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb
from penstock.errors import InvalidArgument
from penstock.sdk.documents import check_fields, parse_duration, parse_flag, parse_mapping, parse_text, parse_whole

if TYPE_CHECKING:
    from penstock.sdk.client import Client

ACTIONS = ("train", "tune", "evaluate", "deploy")
KNOWN = {"kind", "name", "description", "on", "steps", "max_recurrence", "paused"}


def parse_pipeline(client: Client, document: Any) -> pb.Pipeline:
    """The pipeline of a YAML document; raises InvalidArgument naming the field.

    `on` is the trigger (YAML reads a bare `on` as true; both spellings are taken), a step is
    `{id: …, train|tune|evaluate|deploy: {settings}, if: CEL}`.
    """
    if not isinstance(document, Mapping) or document.get("kind") != "Pipeline":
        raise InvalidArgument("The file must be a YAML mapping with `kind: Pipeline`.", field="kind")
    document = {("on" if key is True else str(key)): value for key, value in document.items()}
    check_fields(document, KNOWN)
    name = names.check_id(str(document.get("name", "")), "name")
    steps = document.get("steps")
    if not isinstance(steps, list) or not steps:
        raise InvalidArgument("A pipeline needs a list of `steps`.", field="steps")
    return pb.Pipeline(
        name=client.name("pipeline", name),
        description=parse_text(document.get("description"), "description"),
        trigger=_trigger(document.get("on")),
        steps=[_step(step, f"steps[{index}]") for index, step in enumerate(steps)],
        max_recurrence=parse_whole(document.get("max_recurrence", 0), "max_recurrence"),
        paused=parse_flag(document.get("paused", False), "paused"),
    )


def apply_request(spec: pb.Pipeline) -> pb.UpdatePipelineRequest:
    """The request that makes a pipeline all that `spec` says and nothing else, whatever it was, if it was."""
    return pb.UpdatePipelineRequest(pipeline=spec, allow_missing=True, update_mask=FieldMask(paths=["*"]))


def _trigger(on: Any) -> pb.Trigger:
    if not isinstance(on, Mapping) or not on.get("event"):
        raise InvalidArgument(
            "A pipeline needs `on: {event: TYPE}`, such as dataset.version.committed.", field="on.event"
        )
    unknown = sorted(map(str, set(on) - {"event", "filter", "debounce"}))
    if unknown:
        raise InvalidArgument(f"`on` has event, filter and debounce, not '{unknown[0]}'.", field=f"on.{unknown[0]}")
    trigger = pb.Trigger(event=parse_text(on["event"], "on.event"), filter=parse_text(on.get("filter"), "on.filter"))
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
    settings = parse_mapping(step[action], f"{field}.{action}")
    condition = step.get("if")
    # YAML makes a bare true or false a boolean; CEL spells them alike.
    text = str(condition).lower() if isinstance(condition, bool) else parse_text(condition, f"{field}.if")
    step_id = parse_text(step.get("id", action), f"{field}.id")
    return pb.Step(id=step_id, action=action, condition=text, **{"with": settings})
