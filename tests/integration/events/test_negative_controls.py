"""The mechanisms taken away, in this process, to see the promises break: so the other tests would notice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.events import Bus
from penstock.events import lane as lane_module
from penstock.events import relay as relay_module
from penstock.events.bus import MESSAGE_ID
from penstock.events.envelope import encode, from_entry
from penstock.events.lane import Verdict
from penstock.events.subjects import subject_of
from penstock.store import Aggregates, Database, Pending
from penstock.store.document import Change
from tests.integration.events.faults import Fault, Injector, injected
from tests.integration.events.story import Record, verify
from tests.integration.events.test_kth_write import fresh, survive
from tests.integration.events.world import Journal, Run, consumer_of, new_project, queued, running, runs_in, step


async def test_without_compare_and_set_changes_are_lost(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(self: Aggregates[Any], id: str, version: int, change: Change[Any], update: Any) -> bool:
        await self._collection.update_one({"_id": id}, update)
        return True

    async def race() -> int:
        mine, others = await runs_in(database), await runs_in(database)
        name = f"projects/{new_project()}/runs/a"
        await mine.create(name, Run("p"))
        await asyncio.gather(*(step(runs, name) for runs in (mine, others) for _ in range(10)))
        return (await mine.get(name)).value.steps

    assert await race() == 20
    monkeypatch.setattr(Aggregates, "_compare_and_set", blind)
    assert await race() < 20


async def _duplicated(bus: Bus, database: Database, wanted: int) -> list[int]:
    """What a handler is told when the stream holds every event twice, in the wrong order the second time."""
    project = new_project()
    name = f"projects/{project}/runs/a"
    runs, journal = await runs_in(database), Journal(database, project)
    await runs.create(name, Run(project), [queued(name)])
    for _ in range(4):
        await step(runs, name)
    [pending] = await runs.pending()
    events = [from_entry(entry) for entry in pending.entries]
    for copy, sent in enumerate((events, events[::-1])):
        for event in sent:
            headers, body = encode(event)
            await bus.send(
                subject_of(event.subject, event.type), body, {**headers, MESSAGE_ID: f"{project}{copy}{event.id}"}
            )
    async with running(consumer_of(bus, database, journal).run()):
        await journal.count(wanted)
        await asyncio.sleep(0.5)
    await runs.trim([pending])
    return journal.sequences(name)


async def test_without_the_cursor_events_are_applied_again(
    bus: Bus, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _duplicated(bus, database, 5) == [1, 2, 3, 4, 5]
    monkeypatch.setattr(lane_module, "judge", lambda sequence, cursor: Verdict.NEXT)
    assert len(await _duplicated(bus, database, 6)) > 5


async def _broken(bus: Bus, mongodb_uri: str, ks: range, fault: Fault) -> list[str]:
    """The promises that break with the fault at any of some operations; nothing waits long for what is lost."""
    broken: list[str] = []
    for k in ks:
        async with fresh(mongodb_uri) as database:
            record = await survive(bus, database, Injector(k, fault), seconds=2)
            broken += await verify(database, record)
        if broken:
            break
    return broken


async def test_published_before_it_is_committed_an_event_may_be_of_nothing(
    bus: Bus, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process dies at the write of a change: its event must not be anywhere."""
    original = Aggregates._compare_and_set

    async def boastful(self: Aggregates[Any], id: str, version: int, change: Change[Any], update: Any) -> bool:
        for entry in change.pending.entries:
            await bus.publish(from_entry(entry))
        return await original(self, id, version, change, update)

    async def told_of() -> list[str]:
        project = new_project()
        name = f"projects/{project}/runs/a"
        runs, journal = await runs_in(database), Journal(database, project)
        await runs.create(name, Run(project), [queued(name)])
        relay = relay_module.Relay(database, [runs], bus)
        await relay.once()
        injector = Injector(2, Fault.DIE_BEFORE) if boastfully else Injector(1, Fault.DIE_BEFORE)
        with injected(injector):  # the publish is the first operation where it comes first
            command = asyncio.create_task(step(runs, name))
            await injector.died.wait()
            command.cancel()
            await asyncio.gather(command, return_exceptions=True)
        await relay.once()
        async with running(consumer_of(bus, database, journal).run()):
            await journal.count(2 if boastfully else 1)
            await asyncio.sleep(0.5)
        committed = {f"{name}@{n}" for n in range(1, (await runs.get(name)).sequence + 1)}
        return [event.id for event in journal.told if event.id not in committed]

    boastfully = False
    assert await told_of() == []
    boastfully = True
    monkeypatch.setattr(Aggregates, "_compare_and_set", boastful)
    assert len(await told_of()) == 1


async def test_trimmed_before_they_are_published_events_are_lost(
    bus: Bus, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = relay_module.Relay._pass_on

    async def hasty(self: relay_module.Relay, outbox: Any, pending: list[Pending]) -> None:
        await outbox.aggregates.trim(pending)
        await original(self, outbox, pending)

    monkeypatch.setattr(relay_module.Relay, "_pass_on", hasty)
    broken = await _broken(bus, mongodb_uri, range(8, 20), Fault.DIE_AFTER)
    assert any("effects missing" in complaint for complaint in broken)


async def test_a_verdict_of_the_checks_can_be_bad(database: Database) -> None:
    """The verifier itself: a lost command, a lost event and disorder are all reported."""
    record = Record(new_project())
    runs = await runs_in(database)
    for id in ("a", "b"):
        await runs.create(record.name(id), Run(record.project, 9), [queued(record.name(id))])
    record.disorder.append("x")
    assert len(await verify(database, record)) == 4
