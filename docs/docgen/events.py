"""docs/reference/events.md: every type of event, from the registry."""

from __future__ import annotations

from docgen import protos
from docgen.api import field_line
from docgen.markdown import item, paragraph
from docgen.markdown import page as make_page
from penstock.events.registry import EVENT_TYPES, EventType

_PROTO = "penstock/api/event/v1/events.proto"

_INTRODUCTION = """Each change that others may care about is an event: CloudEvents 1.0 with a JSON body.
These are all the types that Penstock itself emits. Follow them with `penstock events tail`, over gRPC or
REST with `WatchEvents`, or have a pipeline wait for one. [asyncapi.yaml](../asyncapi.yaml) says the same
for programs."""

_FORM = """The full type is `dev.penstock.<type>.v1`. `subject` is the resource whose document was
changed, `id` is `<subject>@<sequence>`, and `sequence` counts 1, 2, 3, … for each subject without gaps.
`correlationid` is the same for all that led from one cause to another; `causationid` is the event or
request that caused this one. Fields that have their default value (empty, 0) are left out of the body;
their names are in lowerCamelCase there, and 64-bit numbers are text."""


def page() -> str:
    """The page."""
    blocks = [paragraph(_FORM)]
    for service in dict.fromkeys(found.service for found in EVENT_TYPES.values()):
        blocks.append(f"## {service}")
        for found in EVENT_TYPES.values():
            if found.service == service:
                blocks += _event(found)
    return make_page("Events", _INTRODUCTION, *blocks)


def _event(found: EventType) -> list[str]:
    source = next(source for source in protos.sources() if source.file.name == _PROTO)
    number = next(i for i, m in enumerate(source.file.message_type) if m.name == found.message.DESCRIPTOR.name)
    message = source.file.message_type[number]
    subject = f"penstock.{{project}}.{found.aggregate}.{{id}}.{found.token}"
    lines = [item(f"subject: a {found.kind.replace('_', ' ')}; on NATS `{subject}`")]
    lines += [item(field_line(message, i, source.comment(4, number, 2, i))) for i in range(len(message.field))]
    return [f"### {found.type}", paragraph(found.description), "\n".join(lines)]
