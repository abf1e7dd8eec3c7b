"""What becomes of an event: filtered, stopped, failed or fired, once, and written down."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from penstock.store import now
from services.pipeline import windows as firing
from services.pipeline.model import Trigger, begin
from tests.support.pipeline_platform import (
    COMMITTED,
    PROJECT,
    Instance,
    PipelinePlatform,
    committed,
    decisions,
    outside,
    pipeline,
    runs,
    store,
)


async def test_an_event_fires_a_run_that_continues_its_chain(instance: Instance) -> None:
    await store(instance, pipeline())
    event = committed(1, chain="chain-1")
    await instance.triggers.handle(event)
    (run,) = await runs(instance)
    assert [cause.event_id for cause in run.causes] == [event.id]
    assert run.correlation_id == "chain-1"
    assert run.author == "ann"
    assert await decisions(instance) == [(event.id, "FIRED")]
    found = await instance.repository.runs.database.collection("runs").find_one({"_id": run.name})
    assert found
    assert '"causation_id":"projects/vision/datasets/digits@1"' in found["outbox"][0]
    assert '"correlation_id":"chain-1"' in found["outbox"][0]


async def test_an_event_that_comes_again_is_decided_once_even_if_the_pipeline_has_changed(instance: Instance) -> None:
    value = await store(instance, pipeline())
    event = committed(1)
    await instance.triggers.handle(event)
    await instance.repository.pipelines.change(value.name, lambda p: replace(p, paused=True))
    await instance.triggers.handle(event)
    assert len(await runs(instance)) == 1
    assert await decisions(instance) == [(event.id, "FIRED")]


async def test_two_instances_at_once_fire_once(platform: PipelinePlatform, instance: Instance) -> None:
    await store(instance, pipeline())
    events = [committed(n) for n in range(1, 6)]
    twins = [instance, platform.instance(), platform.instance()]
    await asyncio.gather(*(twin.triggers.handle(event) for event in events for twin in twins))
    assert len(await runs(instance)) == 5
    assert [outcome for _, outcome in await decisions(instance)] == ["FIRED"] * 5


async def begun_by_two(platform: PipelinePlatform, instance: Instance) -> int:
    """Two processes that both found a fired window begin its run; how many runs there are then."""
    await store(instance, pipeline())
    await instance.triggers.handle(committed(1))
    (window,) = await instance.repository.windows.find()
    other = platform.instance()
    await asyncio.gather(*(twin.windows.begin(window.id, window.value) for twin in (instance, other)))
    return len(await runs(instance))


async def test_a_window_that_two_processes_begin_has_one_run(platform: PipelinePlatform, instance: Instance) -> None:
    assert await begun_by_two(platform, instance) == 1


async def test_without_a_run_id_that_follows_from_the_window_it_has_several(
    platform: PipelinePlatform, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    count = iter(range(1000))

    def begin_anew(value: Any, run_id: str, *rest: Any) -> Any:
        return begin(value, f"{run_id}{next(count)}", *rest)

    monkeypatch.setattr(firing, "begin", begin_anew)
    assert await begun_by_two(platform, instance) == 3


@pytest.mark.parametrize(
    ("filter", "outcome", "said"),
    [
        ("event.data.number > 3", "FILTERED", "does not hold"),
        ("event.data.origin == 'person'", "FILTERED", "does not hold"),
        ("event.data.number >= 1 && event.data.changed == 0", "FIRED", ""),
        ("event.data.nothing.here", "FAILED", "cannot be evaluated"),
        ("event.data.number", "FAILED", "neither true nor false"),
    ],
)
async def test_a_filter_sees_all_fields_of_the_event_as_what_they_are(
    instance: Instance, filter: str, outcome: str, said: str
) -> None:
    await store(instance, pipeline(trigger=Trigger(COMMITTED, filter)))
    event = committed(1)
    await instance.triggers.handle(event)
    assert await decisions(instance) == [(event.id, outcome)]
    (row,) = await instance.repository.decisions_page(f"projects/{PROJECT}/pipelines/retrain", 10, None)
    assert said in row["reason"]


async def test_an_event_from_before_the_pipeline_is_none_of_its_business(instance: Instance) -> None:
    await store(instance, pipeline(create_time=now() + timedelta(seconds=1)))
    await instance.triggers.handle(committed(1))
    assert await decisions(instance) == []


async def test_a_paused_pipeline_fires_nothing_and_says_so(instance: Instance) -> None:
    await store(instance, pipeline(paused=True))
    await instance.triggers.handle(committed(1))
    assert [outcome for _, outcome in await decisions(instance)] == ["FILTERED"]


async def test_events_of_another_type_or_project_are_not_looked_at(instance: Instance) -> None:
    await store(instance, pipeline())
    await instance.triggers.handle(replace(committed(1), type="dataset.import.failed", data={}))
    await instance.triggers.handle(replace(committed(2), project="other"))
    assert await decisions(instance) == []


async def test_an_event_from_outside_cannot_pass_for_one_of_penstocks(instance: Instance) -> None:
    await store(instance, pipeline())
    await instance.triggers.handle(outside("1", COMMITTED, version="projects/vision/datasets/digits/versions/1"))
    assert await decisions(instance) == []
    assert await runs(instance) == []


async def test_events_from_outside_are_told_apart_by_source_and_id(instance: Instance) -> None:
    await store(instance, pipeline(trigger=Trigger("camera.full")))
    for source in ("//plant/1", "//plant/2", "//plant/1"):
        await instance.triggers.handle(outside("7", source=source))
    assert await decisions(instance) == [("7", "FIRED"), ("7", "FIRED")]
    assert len({run.name for run in await runs(instance)}) == 2


async def chained(instance: Instance, count: int, chain: str = "loop", start: int = 1) -> None:
    for number in range(start, start + count):
        await instance.triggers.handle(committed(number, chain=chain))


async def test_runs_of_other_pipelines_in_the_chain_do_not_count(instance: Instance) -> None:
    await store(instance, pipeline(max_recurrence=1))
    await store(instance, pipeline("other", max_recurrence=1))
    await chained(instance, 1)
    assert [outcome for _, outcome in await decisions(instance)] == ["FIRED"]
    assert [outcome for _, outcome in await decisions(instance, "other")] == ["FIRED"]


async def test_recurrence_is_seen_through_the_chain_of_a_second_cause(instance: Instance) -> None:
    value = await store(instance, pipeline(max_recurrence=1))
    await instance.triggers.handle(committed(1, chain="first"))
    # A run that continues another chain, but was caused by something of the first one too.
    (run,) = await runs(instance)
    second = replace(run.causes[0], key="k", event_id="k", correlation_id="second")
    name = f"projects/{PROJECT}/pipelines/bridge/runs/rx"
    bridge = replace(run, name=name, pipeline="projects/vision/pipelines/bridge", causes=(run.causes[0], second))
    await instance.repository.runs.create(name, bridge)
    await instance.triggers.handle(committed(2, chain="second"))
    assert [outcome for _, outcome in await decisions(instance)] == ["FIRED", "STOPPED"]
    assert value.max_recurrence == 1
