"""The process dies at its k-th write, for every k: no cause is lost or doubled, and a window has one run."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from penstock.events import Event
from services.pipeline.model import Pipeline, Trigger, Window
from services.pipeline.trigger import Triggers
from tests.support.faults import KilledWrites
from tests.support.pipeline_platform import (
    COMMITTED,
    Instance,
    PipelinePlatform,
    committed,
    debounced,
    decisions,
    eventually,
    pipeline,
    running,
    runs,
    store,
)

GATHERED = debounced(0.02, 0.5)
AT_ONCE = Trigger(COMMITTED)


async def story(instance: Instance, events: list[Event]) -> None:
    """What a process does: handle the events, then fire what has to."""
    for event in events:
        await instance.triggers.handle(event)
    async with running(instance.windows.run):
        await eventually(lambda: settled(instance, len(events)))


async def settled(instance: Instance, count: int) -> bool:
    found = await decisions(instance)
    unstarted = await instance.repository.unstarted_windows()
    return len(found) == count and {outcome for _, outcome in found} == {"FIRED"} and not unstarted


async def check(instance: Instance, events: list[Event]) -> list[int]:
    """Each event is a cause of exactly one run, each run of one window; answers the causes of the runs."""
    found = await runs(instance)
    kept = Counter(cause.event_id for run in found for cause in run.causes)
    assert kept == Counter(event.id for event in events)
    windows: list[Any] = await instance.repository.windows.find()
    assert len({w.value.run for w in windows if w.value.causes}) == len(found)
    return [len(run.causes) for run in found]


async def run_story(
    platform: PipelinePlatform, faults: KilledWrites, trigger: Trigger, number: int, k: int
) -> tuple[int, bool, list[int]]:
    """One story in a pipeline of its own, with a kill at the k-th write (0: none), then redelivery and a restart."""
    database = platform.database
    first = platform.instance()
    value: Pipeline = await store(first, pipeline(trigger=trigger))
    events = [committed(100 * number + n, chain=f"c{n}") for n in (1, 2, 3)]
    with faults.kill_at(k):
        await faults.killed_or(lambda: story(first, events))
    count, fired = faults.count, faults.fired
    second = platform.instance()
    await story(second, events)
    causes = await check(second, events)
    for name in ("runs", "windows", "decisions", "pipelines"):
        await database.collection(name).delete_many({})
    assert value.project
    return count, fired, causes


@pytest.mark.parametrize(
    ("trigger", "carried_out"),
    [(GATHERED, False), (GATHERED, True), (AT_ONCE, False)],
    ids=["gathered-before", "gathered-after", "at-once-before"],
)
async def test_a_kill_at_any_write_loses_and_doubles_nothing(
    platform: PipelinePlatform, monkeypatch: pytest.MonkeyPatch, trigger: Trigger, carried_out: bool
) -> None:
    faults = KilledWrites(monkeypatch, carried_out=carried_out)
    total, _, causes = await run_story(platform, faults, trigger, 0, 0)
    assert causes == ([3] if trigger is GATHERED else [1, 1, 1])
    reached = 0
    for k in range(1, total + 1):
        _, fired, _ = await run_story(platform, faults, trigger, k, k)
        reached += fired
    assert reached == total


async def test_without_the_claim_in_the_ledger_a_kill_doubles_an_event(
    platform: PipelinePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the same story when nobody looks where an event went before."""

    async def forgetful(self: Triggers, value: Pipeline, cause: Any) -> None:
        window_id = await self._open_window(value, cause)
        await self.repository.ledger.decide(value.name, cause, (await self._judge(value, cause))[0], "", window_id)
        await self._append(value, window_id, cause)
        self.windows.grown.set()

    monkeypatch.setattr(Triggers, "_handle", forgetful)
    instance = platform.instance()
    await store(instance, pipeline(trigger=GATHERED))
    events = [committed(1)]
    await story(instance, events)
    await instance.triggers.handle(events[0])  # redelivered: the process died before its acknowledgement
    async with running(instance.windows.run):
        await eventually(lambda: two(instance))
    with pytest.raises(AssertionError):
        await check(instance, events)


async def two(instance: Instance) -> bool:
    return len(await runs(instance)) == 2


def test_a_window_is_the_same_object_when_there_is_nothing_to_add() -> None:
    window = Window("p", "vision")
    value = pipeline(trigger=GATHERED)
    from services.pipeline.causes import cause_of

    cause = cause_of(committed(1))
    grown = window.with_cause(cause, value.create_time, value.trigger)
    assert grown.fire_at == value.create_time + timedelta(seconds=0.02)
    assert grown.with_cause(cause, value.create_time, value.trigger) is grown
    assert grown.fired("r").with_cause(cause_of(committed(2)), value.create_time, value.trigger).causes == (cause,)
