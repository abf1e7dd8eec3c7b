"""The table of event types, and what follows from it."""

from __future__ import annotations

import pytest

from penstock import names
from penstock.api.event.v1 import events_pb2
from penstock.errors import InvalidArgument
from penstock.events import EVENT_TYPES, Event, NewEvent, event_type
from penstock.events.registry import AGGREGATES, SERVICES
from penstock.events.subjects import STREAM_SUBJECTS, kind_filters, subject_of


def test_every_type_is_registered_once_with_its_message() -> None:
    messages = [m for m in events_pb2.DESCRIPTOR.message_types_by_name.values() if m.name != "Event"]
    assert {found.message.DESCRIPTOR for found in EVENT_TYPES.values()} == set(messages)
    assert len({(found.aggregate, found.token) for found in EVENT_TYPES.values()}) == len(EVENT_TYPES)


@pytest.mark.parametrize("found", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_every_type_is_described_and_belongs_to_a_service(found: object) -> None:
    assert found.description.endswith("."), found.description  # type: ignore[attr-defined]
    assert found.service in SERVICES and found.aggregate in AGGREGATES  # type: ignore[attr-defined]


def test_types_are_found_with_and_without_prefix() -> None:
    found = event_type("dev.penstock.training.run.succeeded.v1")
    assert found is event_type("training.run.succeeded")
    assert (found.service, found.kind, found.token) == ("training", "run", "succeeded")
    with pytest.raises(InvalidArgument, match="not an event type"):
        event_type("training.run.exploded")


def test_subjects_have_the_aggregate_and_the_rest_of_the_type() -> None:
    assert subject_of("projects/p/runs/r1", "training.run.queued") == "penstock.p.training.run.r1.queued"
    assert subject_of("projects/p/datasets/d", "dataset.version.committed") == (
        "penstock.p.dataset.dataset.d.version-committed"
    )
    assert subject_of("projects/p", "project.created") == "penstock.p.project.project.p.created"


def test_consumers_subscribe_to_whole_kinds_that_exist() -> None:
    assert kind_filters(["training.run"]) == ["penstock.*.training.run.>"]
    assert kind_filters(None) == list(STREAM_SUBJECTS)
    with pytest.raises(ValueError, match=r"tuning\.study"):
        kind_filters(["tuning.trial"])


def test_an_event_must_be_of_its_message() -> None:
    message = events_pb2.RunStarted(run="projects/p/runs/a", attempt=2)
    assert NewEvent.of(message) == NewEvent("training.run.started", {"run": "projects/p/runs/a", "attempt": 2})
    with pytest.raises(InvalidArgument, match="colour"):
        NewEvent("training.run.started", {"colour": "red"})
    with pytest.raises(InvalidArgument):
        NewEvent("training.run.started", {"attempt": "many"})
    with pytest.raises(InvalidArgument):
        NewEvent("com.example.x")


def test_fields_of_a_newer_release_are_ignored_when_read() -> None:
    event = Event("x@1", "training.run.started", "s", "x", 1, None, {"attempt": 2, "colour": "red"})  # type: ignore[arg-type]
    assert event.message() == events_pb2.RunStarted(attempt=2)


def test_every_kind_of_an_event_is_named() -> None:
    assert all(found.kind in names.PATTERNS for found in EVENT_TYPES.values())
