"""Events from outside: taken once, checked, never in the way of anything when they are wrong."""

from __future__ import annotations

import json

import pytest

from penstock.backing.nats import NatsServer
from penstock.errors import InvalidArgument
from penstock.events import Bus, DeadLetters, Event, ExternalIntake, external_event, tail
from penstock.events.credentials import external_permissions
from penstock.events.subjects import EXTERNAL_STREAM
from penstock.store import Cause, Database, Rows, current_cause
from tests.integration.events.conftest import Nats
from tests.integration.events.world import new_project, running, until


class Seen:
    """What a handler was given."""

    def __init__(self, project: str) -> None:
        self.project = project
        self.events: list[Event] = []
        self.causes: list[Cause | None] = []
        self.failing = False

    async def handle(self, event: Event) -> None:
        if event.project != self.project:
            return
        if self.failing:
            raise ValueError("no use for it")
        self.events.append(event)
        self.causes.append(current_cause.get())


def intake_of(bus: Bus, database: Database, seen: Seen, **options: float) -> ExternalIntake:
    name = f"intake-{seen.project}"
    return ExternalIntake(bus, database, seen.handle, name=name, **{"retry_delay": 0.02, **options})


ATTRIBUTES = {"specversion": "1.0", "id": "7", "source": "s", "type": "com.example"}


def headers(**changes: str) -> dict[str, str]:
    found = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/line/3", "ce-type": "com.example.lot.finished"}
    return {**found, **{f"ce-{name}": value for name, value in changes.items()}}


async def test_binary_and_structured_events_arrive_once(nats: Nats, bus: Bus, database: Database) -> None:
    project = new_project()
    seen, subject = Seen(project), f"penstock.{project}.external.line.lot"
    structured = {
        "specversion": "1.0",
        "id": "2",
        "source": "/line/3",
        "type": "com.example.lot.finished",
        "time": "2026-11-20T12:00:00Z",
        "data": {"lot": 8},
    }
    async with running(intake_of(bus, database, seen).run()):
        for _ in range(3):
            await bus.send(subject, b'{"lot": 7}', headers(subject="lots/7"))
            await bus.send(subject, json.dumps(structured).encode(), {"Content-Type": "application/cloudevents+json"})
        await until(lambda: len(seen.events) >= 2)
        await bus.send(subject, b"{}", headers(id="last"))
        await until(lambda: any(event.id == "last" for event in seen.events))
    first, second = sorted(seen.events, key=lambda event: event.id)[:2]
    assert (first.id, first.type, first.subject, first.data) == ("1", "com.example.lot.finished", "lots/7", {"lot": 7})
    assert (second.id, second.sequence, second.project, second.data) == ("2", 0, project, {"lot": 8})
    assert len(seen.events) == 3
    assert seen.causes[0] is not None and seen.causes[0].correlation_id == seen.causes[0].causation_id != ""


@pytest.mark.parametrize(
    ("given", "body", "reason"),
    [
        ({}, b"{", "must be JSON"),
        ({}, b"[1]", "must be a JSON object"),
        ({"type": "dev.penstock.training.run.succeeded.v1"}, b"{}", "Penstock's own"),
        ({"id": ""}, b"{}", "attribute 'id'"),
        ({"specversion": "0.3"}, b"{}", "specversion must be 1.0"),
        ({"time": "yesterday"}, b"{}", "RFC 3339"),
        ({"source": "x" * 2000}, b"{}", "longer than"),
        ({"time": "9999-12-31T23:59:59-12:00"}, b"{}", "RFC 3339"),
        ({}, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", "levels deep"),
        ({}, b'{"a":' + b"[" * 9_000 + b"]" * 9_000 + b"}", "must be JSON"),
        ({}, b'{"a":NaN}', "NaN is no JSON"),
        ({}, b'{"a":1%s}' % (b"0" * 400), "numbers finite"),
        ({}, b'{"a":"\\ud800"}', "must be Unicode"),
    ],
)
async def test_a_malformed_event_is_a_dead_letter_with_the_reason(
    bus: Bus, database: Database, given: dict[str, str], body: bytes, reason: str
) -> None:
    project, letters = new_project(), DeadLetters(database)
    seen, subject = Seen(project), f"penstock.{project}.external.line"
    async with running(intake_of(bus, database, seen).run()):
        await bus.send(subject, body, headers(**given))
        await bus.send(subject, b"{}", headers(id="good"))
        await until(lambda: len(seen.events) == 1)
        await until(lambda: _any(letters, project))
    [letter] = [found for found in await letters.list() if found.event.project == project]
    assert reason in letter.error and letter.raw is not None and letter.raw.body == body


async def test_whatever_one_project_publishes_others_go_on(bus: Bus, database: Database) -> None:
    """More messages that cannot be read than the server hands out unacknowledged, and somebody who watches."""
    project, letters = new_project(), DeadLetters(database)
    seen, subject = Seen(project), f"penstock.{project}.external.line"
    watched: list[Event] = []

    async def watch() -> None:
        async for event in tail(bus, project=project):
            watched.append(event)

    async with running(watch()):
        await until(lambda: _watched(bus, 2))
        for number in range(220):
            await bus.send(subject, b'{"a":%d,"b":"\\ud800"}' % number, headers(id=str(number)))
        async with running(intake_of(bus, database, seen).run()):
            await bus.send(subject, b"{}", headers(id="good"))
            await until(lambda: [event.id for event in seen.events] == ["good"])
        await until(lambda: [event.id for event in watched] == ["good"])
    assert len([found for found in await letters.list(limit=1_000) if found.event.project == project]) == 220
    await bus.context.purge_stream(EXTERNAL_STREAM)  # the intakes of other tests read it from the beginning


async def _any(letters: DeadLetters, project: str) -> bool:
    return any(letter.event.project == project for letter in await letters.list())


async def _none(letters: DeadLetters, project: str) -> bool:
    return not await _any(letters, project)


async def test_an_event_that_its_handler_refuses_is_kept_and_can_be_retried(bus: Bus, database: Database) -> None:
    project, letters = new_project(), DeadLetters(database)
    seen = Seen(project)
    seen.failing = True
    intake = intake_of(bus, database, seen)
    async with running(intake.run()):
        await bus.send(f"penstock.{project}.external.line", b'{"lot": 7}', headers())
        await until(lambda: _any(letters, project))
        [letter] = [found for found in await letters.list() if found.event.project == project]
        assert (letter.error, letter.attempts) == ("ValueError: no use for it", 5)
        seen.failing = False
        await letters.retry(letter.id)
        await until(lambda: len(seen.events) == 1)
    assert seen.events[0].data == {"lot": 7}


async def test_a_minted_publisher_reaches_the_intake_and_nothing_else(nats: Nats, bus: Bus, database: Database) -> None:
    project = new_project()
    server: NatsServer = nats.server
    seen = Seen(project)
    credentials = server.credentials(f"x-{project}", external_permissions("x", project))
    from nats.aio.client import Client  # a plain client, as somebody outside has

    client = Client()
    await client.connect(nats.url, user_credentials=str(credentials), inbox_prefix=b"_INBOX_x", error_cb=_ignore)
    try:
        async with running(intake_of(bus, database, seen).run()):
            await client.publish(f"penstock.{project}.training.run.a.succeeded", b"{}", headers=headers(id="forged"))
            await client.publish(f"penstock.{project}.external.line.lot", b'{"lot": 9}', headers=headers())
            await client.flush()
            await until(lambda: len(seen.events) == 1)
    finally:
        await client.close()
    assert seen.events[0].data == {"lot": 9}


async def _ignore(error: Exception) -> None:
    """The server's refusal of the forged one."""


async def test_an_event_is_published_on_somebodys_behalf(bus: Bus, database: Database) -> None:
    project = new_project()
    seen = Seen(project)
    event = external_event(
        project,
        {"specversion": "1.0", "id": "7 %", "source": "urn:x y", "type": "com.example.ü", "traceparent": "00-a-b-01"},
        {"a": 1},
    )
    intake = intake_of(bus, database, seen)
    async with running(intake.run()):
        await intake.publish(event)
        await intake.publish(event)
        await until(lambda: len(seen.events) == 1)
    [found] = seen.events
    assert (found.id, found.source, found.type, found.data) == ("7 %", "urn:x y", "com.example.ü", {"a": 1})
    assert found.traceparent == "00-a-b-01"
    with pytest.raises(InvalidArgument, match="own"):
        external_event(project, {"specversion": "1.0", "id": "1", "source": "s", "type": "dev.penstock.x"}, {})


async def test_what_was_published_on_somebodys_behalf_outlives_the_stream(bus: Bus, database: Database) -> None:
    """The stream drops its oldest messages when it is full, and old ones."""
    project = new_project()
    seen = Seen(project)
    event = external_event(project, ATTRIBUTES, {"a": 1})
    intake = intake_of(bus, database, seen, overdue=0.2)
    answered = await intake.publish(event)
    assert await bus.context.purge_stream("PENSTOCK_EXTERNAL", subject=f"penstock.{project}.external.>")
    async with running(intake.run()):
        await until(lambda: len(seen.events) == 1, 10)
        assert seen.events == [answered]
        await until(lambda: _handled(database, project, 1))
    async with running(intake_of(bus, database, seen, overdue=0.2).run()):
        await intake.publish(external_event(project, {**ATTRIBUTES, "id": "8"}, {}))
        await until(lambda: len(seen.events) == 2)
    assert [found.id for found in seen.events] == ["7", "8"]


async def test_what_was_given_up_is_left_to_the_operator(bus: Bus, database: Database) -> None:
    project, letters = new_project(), DeadLetters(database)
    seen = Seen(project)
    seen.failing = True
    intake = intake_of(bus, database, seen, overdue=0.05)
    await intake.publish(external_event(project, ATTRIBUTES, {}))
    assert await bus.context.purge_stream("PENSTOCK_EXTERNAL", subject=f"penstock.{project}.external.>")
    async with running(intake.run()):
        await until(lambda: _any(letters, project))
        await until(lambda: _handled(database, project, 2))
        seen.failing = False
        await intake.publish(external_event(project, {**ATTRIBUTES, "id": "8"}, {}))
        await until(lambda: len(seen.events) == 1)
        [letter] = [found for found in await letters.list() if found.event.project == project]
        await letters.retry(letter.id)
        await until(lambda: len(seen.events) == 2)
        await until(lambda: _handled(database, project, 1, 1))
        await until(lambda: _none(letters, project))
    assert [found.id for found in seen.events] == ["8", "7"]


async def _handled(database: Database, project: str, *how: int) -> bool:
    """How a project's stored events are, in the order of their times (1: done with, 2: given up)."""
    rows = Rows(database, "external_events", indexes=("project", "at", "handled"))
    return [row["handled"] for row in await rows.find(eq={"project": project}, order_by="at")] == list(how)


async def test_watching_sees_own_and_outside_events_of_one_project(bus: Bus, database: Database) -> None:
    from tests.integration.events.world import Run, queued, relay_of, runs_in, step

    project, other = new_project(), new_project()
    runs = await runs_in(database)
    name, elsewhere = f"projects/{project}/runs/a", f"projects/{other}/runs/a"
    everything, started = tail(bus, project=project), tail(bus, ["training.run.started", "com.example"], project)
    found: dict[str, list[str]] = {"everything": [], "started": []}

    async def watch(key: str, events: object) -> None:
        async for event in events:  # type: ignore[attr-defined]
            found[key].append(event.type)

    async with running(watch("everything", everything), watch("started", started), relay_of(bus, database, runs).run()):
        await until(lambda: _watched(bus, 4))
        for resource, of in ((elsewhere, other), (name, project)):
            await runs.create(resource, Run(of), [queued(resource)])
            await step(runs, resource)
        await bus.send(f"penstock.{project}.external.line", b"{}", headers())
        await until(lambda: len(found["everything"]) == 3 and len(found["started"]) == 2)
    assert sorted(found["everything"]) == ["com.example.lot.finished", "training.run.queued", "training.run.started"]
    assert sorted(found["started"]) == ["com.example.lot.finished", "training.run.started"]
    await until(lambda: _watched(bus, 0))


async def _watched(bus: Bus, count: int) -> bool:
    names = []
    for stream in ("PENSTOCK", "PENSTOCK_EXTERNAL"):
        names += [found.name for found in await bus.context.consumers_info(stream)]
    return len([name for name in names if name.startswith("tail-")]) == count
