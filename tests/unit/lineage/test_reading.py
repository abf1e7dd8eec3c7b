"""What events say: every type with a resource is understood, whatever of its fields is there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.protobuf import json_format

from penstock.events import EVENT_TYPES, Event, NewEvent
from services.lineage.model import EMITTED, READERS, Edge, inside, read, without_idle_events

NAMES = {
    "version": "datasets/d/versions/2", "dataset": "datasets/d", "dataset_version": "datasets/d/versions/2",
    "run": "runs/r1", "model": "models/m", "model_version": "models/m/versions/1", "study": "studies/s",
    "trial": "studies/s/trials/1", "evaluation": "evaluations/e", "endpoint": "endpoints/e",
    "revision": "endpoints/e/revisions/1", "previous": "endpoints/e/revisions/2", "pipeline": "pipelines/p",
    "resource": "runs/r2", "baseline": "models/m/versions/2",
}  # fmt: skip


def event_of(type: str) -> Event:
    """An event with every field set that names a resource."""
    message = EVENT_TYPES[type].message()
    for field in message.DESCRIPTOR.fields:
        if field.name in NAMES:
            setattr(message, field.name, f"projects/p/{NAMES[field.name]}")
    if type.startswith("pipeline.run."):
        message.run = "projects/p/pipelines/p/runs/r1"  # type: ignore[attr-defined]
    data = NewEvent(type, json_format.MessageToDict(message)).data
    subject = "projects/p/pipelines/p/runs/r1" if type.startswith("pipeline.run.") else "projects/p/datasets/d"
    return Event(f"{subject}@4", type, "//penstock/x", subject, 4, datetime.now(UTC), data, "c", project="p")


@pytest.mark.parametrize("type", sorted(READERS))
def test_an_event_makes_nodes_of_its_project_and_edges_between_names(type: str) -> None:
    facts = read(event_of(type))
    assert facts.nodes or facts.edges
    assert {node.project for node in facts.nodes} <= {"p"}
    assert all(edge.source and edge.target and edge.source != edge.target for edge in facts.edges)


def test_every_type_that_is_read_is_registered() -> None:
    assert set(READERS) <= set(EVENT_TYPES)


def test_an_event_that_made_something_is_a_node_since_it_may_cause_a_run() -> None:
    event = event_of("training.model.registered")
    facts = read(event)
    assert Edge("projects/p/models/m/versions/1", event.id, EMITTED) in facts.edges
    assert event.id in {node.name for node in facts.nodes}


def test_events_that_caused_nothing_are_left_out_of_answers() -> None:
    idle, busy = Edge("a", "e1", EMITTED), Edge("b", "e2", EMITTED)
    caused = Edge("e2", "r", "caused")
    assert without_idle_events([idle, busy, caused]) == [busy, caused]


def test_a_name_of_another_project_is_not_inside() -> None:
    assert inside("projects/p/runs/r", "p")
    assert inside("xdigest", "p")
    assert not inside("projects/pp/runs/r", "p")
