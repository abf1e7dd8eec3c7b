"""A pipeline stops where it led to its own cause, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.events import Event
from penstock.store import now
from services.pipeline.causes import cause_of
from services.pipeline.model import Trigger, begin
from tests.support.pipeline_platform import (
    PROJECT,
    Instance,
    PipelinePlatform,
    committed,
    decisions,
    pipeline,
    runs,
    store,
)

SUCCEEDED = "training.run.succeeded"
CHAIN = "request-1"


def trained(platform: PipelinePlatform, id: str, caused_by: str) -> Event:
    """A training run succeeded, which began because of `caused_by`; its owner knows its events."""
    name = f"projects/{PROJECT}/runs/{id}"
    queued = Event(f"{name}@1", "training.run.queued", "//penstock/training", name, 1, now(), {"run": name}, CHAIN)
    queued = replace(queued, causation_id=caused_by, project=PROJECT)
    ended = replace(queued, id=f"{name}@2", type=SUCCEEDED, sequence=2, causation_id=queued.id)
    platform.history[name] = [queued, ended]
    return ended


async def outcomes(instance: Instance) -> list[str]:
    return [outcome for _, outcome in await decisions(instance)]


async def loop(platform: PipelinePlatform, instance: Instance, rounds: int) -> None:
    """Each run of the pipeline makes a training run, whose success would fire it again."""
    caused_by = "request:abc"
    for number in range(rounds):
        before = await runs(instance)
        await instance.triggers.handle(trained(platform, f"t{number}", caused_by))
        after = await runs(instance)
        if len(after) == len(before):
            return
        caused_by = f"{after[-1].name}@1"


@pytest.fixture
async def waits_for_training(instance: Instance) -> str:
    return (await store(instance, pipeline(trigger=Trigger(SUCCEEDED)))).name


@pytest.mark.usefixtures("waits_for_training")
async def test_siblings_of_one_study_all_fire(platform: PipelinePlatform, instance: Instance) -> None:
    study = f"projects/{PROJECT}/studies/s"
    started = Event(f"{study}@1", "tuning.study.started", "//penstock/tuning", study, 1, now(), {}, CHAIN)
    platform.history[study] = [replace(started, causation_id="request:abc", project=PROJECT)]
    for number in range(8):
        await instance.triggers.handle(trained(platform, f"trial-{number}", f"{study}@1"))
    assert await outcomes(instance) == ["FIRED"] * 8


@pytest.mark.usefixtures("waits_for_training")
async def test_a_loop_ends_after_so_many_runs(platform: PipelinePlatform, instance: Instance) -> None:
    await loop(platform, instance, 10)
    assert await outcomes(instance) == ["FIRED"] * 3 + ["STOPPED"]
    (newest, *_) = await instance.repository.decisions_page(f"projects/{PROJECT}/pipelines/retrain", 1, None)
    assert newest["reason"] == "3 runs of this pipeline led to this event already"


@pytest.mark.usefixtures("waits_for_training")
async def test_without_what_caused_the_runs_the_loop_would_look_like_siblings(
    platform: PipelinePlatform, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above: the work of runs says that somebody asked for it."""
    fetch = instance.triggers.recurrence.fetch_event

    async def asked_for(resource: str, sequence: int) -> Event | None:
        event = await fetch(resource, sequence)
        return replace(event, causation_id="request:abc") if event else None

    monkeypatch.setattr(instance.triggers.recurrence, "fetch_event", asked_for)
    await loop(platform, instance, 10)
    assert await outcomes(instance) == ["FIRED"] * 10


@pytest.mark.usefixtures("waits_for_training")
async def test_every_cause_of_a_run_is_looked_at(platform: PipelinePlatform, instance: Instance) -> None:
    """A loop through another pipeline, whose run was caused by something else last."""
    caused_by = "request:abc"
    for number in range(5):
        await instance.triggers.handle(trained(platform, f"t{number}", caused_by))
        run = (await runs(instance))[-1]
        first = replace(run.causes[0], key=f"k{number}", causation_id=f"{run.name}@1")
        name = f"projects/{PROJECT}/pipelines/bridge/runs/r{number}"
        last = replace(first, key=f"x{number}", causation_id="request:else")
        bridge = replace(
            run,
            name=name,
            pipeline=f"projects/{PROJECT}/pipelines/bridge",
            causes=(first, last),
            create_time=run.create_time,
        )
        await instance.repository.runs.create(name, bridge)
        caused_by = f"{name}@1"
    assert (await outcomes(instance))[:4] == ["FIRED", "FIRED", "FIRED", "STOPPED"]


@pytest.mark.parametrize("claimed", ["", "projects/another/runs/r@1", "nonsense", f"projects/{PROJECT}/runs/gone@1"])
async def test_where_a_cause_cannot_be_told_all_runs_of_the_chain_count(instance: Instance, claimed: str) -> None:
    await store(instance, pipeline(max_recurrence=2))
    for number in range(1, 5):
        await instance.triggers.handle(replace(committed(number, chain="loop"), causation_id=claimed))
    assert await outcomes(instance) == ["FIRED", "FIRED", "STOPPED", "STOPPED"]
    await instance.triggers.handle(committed(9, chain="another"))
    assert len(await runs(instance)) == 3


async def test_of_a_long_chain_no_more_is_read_than_matters(
    platform: PipelinePlatform, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length must not cost every further event of it."""
    waits = await store(instance, pipeline(max_recurrence=3))
    for number in range(100):
        cause = cause_of(replace(committed(number + 1, chain="long"), causation_id="request:abc"))
        run = begin(waits, f"r{number}", [cause], now())
        await instance.repository.runs.create(run.name, run)
    read: list[int] = []
    find = instance.repository.runs.find

    async def counted(**asked: Any) -> Any:
        page = await find(**asked)
        read.append(len(page))
        return page

    monkeypatch.setattr(instance.repository.runs, "find", counted)
    event = replace(committed(101, chain="long"), causation_id="request:abc")
    assert await instance.triggers.recurrence.count(waits, cause_of(event)) == 0
    assert sum(read) < 50
    nobody = pipeline("other")
    read.clear()
    assert await instance.triggers.recurrence._in_chain(nobody, cause_of(event)) == 0
    assert sum(read) == 100


async def test_causes_that_go_in_a_circle_end(platform: PipelinePlatform, instance: Instance) -> None:
    await store(instance, pipeline(max_recurrence=1))
    name = f"projects/{PROJECT}/runs/a"
    circle = Event(f"{name}@1", "training.run.queued", "//penstock/training", name, 1, now(), {}, "loop", f"{name}@1")
    platform.history[name] = [circle]
    for number in (1, 2):
        await instance.triggers.handle(replace(committed(number, chain="loop"), causation_id=f"{name}@1"))
    assert await outcomes(instance) == ["FIRED", "FIRED"]
