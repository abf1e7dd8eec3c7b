"""Events that are gathered: one run with all of them, after quiet or at the latest after max_wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from penstock.store import Aggregates, now
from services.pipeline import model
from services.pipeline.model import Outcome
from tests.support.pipeline_platform import (
    PROJECT,
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


async def gathered(instance: Instance, *numbers: int) -> None:
    for number in numbers:
        await instance.triggers.handle(committed(number, chain=f"chain-{number}"))


async def ran(instance: Instance, count: int = 1) -> Any:
    async def enough() -> Any:
        found = await runs(instance)
        return found if len(found) >= count else None

    return await eventually(enough)


def causes(run: Any) -> list[str]:
    return [cause.event_id.rsplit("@", 1)[1] for cause in run.causes]


async def test_several_events_become_one_run_that_keeps_all_of_them_as_causes(instance: Instance) -> None:
    await store(instance, pipeline(trigger=debounced(1.5, 10)))
    async with running(instance.windows.run):
        await gathered(instance, 1, 2, 3)
        assert {outcome for _, outcome in await decisions(instance)} == {"DEBOUNCED"}
        (run,) = await ran(instance)
        await eventually(lambda: all_decided(instance, "FIRED"))
    assert causes(run) == ["1", "2", "3"]
    assert run.correlation_id == "chain-3"
    assert len(await runs(instance)) == 1


async def all_decided(instance: Instance, outcome: str) -> bool:
    return {found for _, found in await decisions(instance)} == {outcome}


async def test_events_without_pause_fire_after_max_wait(instance: Instance) -> None:
    await store(instance, pipeline(trigger=debounced(0.8, 0.8)))
    began = now()
    async with running(instance.windows.run):
        for number in range(1, 200):
            await gathered(instance, number)
            if await runs(instance):
                break
            await asyncio.sleep(0.05)
    (run,) = await runs(instance)
    assert len(run.causes) > 1
    assert run.create_time - began >= timedelta(seconds=0.8)


async def test_an_event_after_the_window_fired_goes_to_the_next_one(instance: Instance) -> None:
    await store(instance, pipeline(trigger=debounced(0.05, 1)))
    async with running(instance.windows.run):
        await gathered(instance, 1)
        await ran(instance)
        await gathered(instance, 2)
        both = await ran(instance, 2)
    assert [causes(run) for run in both] == [["1"], ["2"]]


async def test_an_event_that_comes_again_is_in_one_window_only(platform: PipelinePlatform, instance: Instance) -> None:
    await store(instance, pipeline(trigger=debounced(0.05, 0.3)))
    other = platform.instance()
    events = [committed(number) for number in range(1, 7)]
    async with running(instance.windows.run, other.windows.run):
        for event in events:
            await asyncio.gather(instance.triggers.handle(event), other.triggers.handle(event))
        await eventually(lambda: all_decided(instance, "FIRED"))
        for event in events:
            await asyncio.gather(instance.triggers.handle(event), other.triggers.handle(event))
        await asyncio.sleep(0.6)
    kept = [cause for run in await runs(instance) for cause in causes(run)]
    assert sorted(kept) == ["1", "2", "3", "4", "5", "6"]


async def test_an_event_whose_window_fired_without_it_moves_to_another(instance: Instance) -> None:
    """As after a stall between the ledger and the window: the claim is moved, once."""
    value = await store(instance, pipeline(trigger=debounced(0.05, 1)))
    event = committed(5)
    await gathered(instance, 1)
    window = await instance.repository.open_window(value.name)
    assert window is not None
    cause = replace(window.value.causes[0], key=event.id, event_id=event.id)
    await instance.repository.ledger.decide(value.name, cause, Outcome.DEBOUNCED, "", window.id)
    async with running(instance.windows.run):
        await ran(instance)
        await instance.triggers.handle(event)
        both = await ran(instance, 2)
    assert [causes(run) for run in both] == [["1"], ["5"]]


async def test_a_window_survives_a_restart(platform: PipelinePlatform, instance: Instance) -> None:
    await store(instance, pipeline(trigger=debounced(0.3, 2)))
    async with running(instance.windows.run):
        await gathered(instance, 1)
    second = platform.instance()
    await gathered(second, 2)
    async with running(second.windows.run):
        (run,) = await ran(second)
    assert causes(run) == ["1", "2"]


async def test_a_window_that_grows_too_large_fires_at_once(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_CAUSES", 3)
    await store(instance, pipeline(trigger=debounced(30, 60)))
    async with running(instance.windows.run):
        await gathered(instance, 1, 2, 3)
        (run,) = await ran(instance)
    assert causes(run) == ["1", "2", "3"]


async def test_what_waits_for_a_deleted_pipeline_never_runs(instance: Instance) -> None:
    value = await store(instance, pipeline(trigger=debounced(0.1, 1)))
    await gathered(instance, 1)
    await instance.pipelines.delete(value.name)
    await asyncio.sleep(0.01)
    await instance.repository.pipelines.create(value.name, replace(value, create_time=now()))
    async with running(instance.windows.run):
        await eventually(lambda: all_decided(instance, "STOPPED"))
        await gathered(instance, 2)
        (run,) = await ran(instance)
    assert causes(run) == ["2"]


async def test_a_filtered_event_is_in_no_window(instance: Instance) -> None:
    await store(instance, pipeline(trigger=debounced(0.05, 1, filter="event.data.number != 2")))
    await gathered(instance, 1, 2, 3)
    async with running(instance.windows.run):
        (run,) = await ran(instance)
    assert causes(run) == ["1", "3"]


async def test_without_compare_and_set_on_windows_a_cause_is_lost(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a window that fires over what another process has just appended."""
    value = await store(instance, pipeline(trigger=debounced(0.05, 1)))
    await gathered(instance, 1)
    stale = await instance.repository.open_window(value.name)
    await gathered(instance, 2)
    assert stale is not None

    real = Aggregates._compare_and_set

    async def blind(self: Any, id: str, version: int, change: Any, update: Any) -> bool:
        current = await self.get(id)
        return await real(self, id, current.version, change, update)

    with monkeypatch.context() as patched:
        patched.setattr(Aggregates, "_compare_and_set", blind)
        await instance.windows._fire(stale)
    (run,) = await runs(instance)
    assert causes(run) == ["1"]
    assert ("projects/vision/datasets/digits@2", "DEBOUNCED") in await decisions(instance)
    assert PROJECT in run.name
