"""The steps of a run: references, conditions, failure, retry, cancellation, and a restart in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from penstock.errors import FailedPrecondition, InvalidArgument, Unavailable
from services.pipeline.model import PipelineRun, RunState, Step, StepState
from tests.support.faults import KilledWrites
from tests.support.pipeline_platform import (
    PROJECT,
    TRAIN,
    Instance,
    PipelinePlatform,
    committed,
    eventually,
    pipeline,
    running,
    runs,
    store,
)

EVALUATE = Step(
    "judge", "evaluate", {"model": "${steps.train.model_version}", "dataset": "holdout", "rule": "accuracy > 0.5"}
)
DEPLOY = Step("serve", "deploy", {"endpoint": "live", "model": "${steps.train.model_version}", "steps": [10, 100]})
VERSION = f"projects/{PROJECT}/datasets/digits/versions/1"


@pytest.fixture
async def platform(platform: PipelinePlatform) -> AsyncIterator[PipelinePlatform]:
    await platform.serve_fakes()
    yield platform


async def begun(instance: Instance, *steps: Step, **more: Any) -> str:
    """A run of a pipeline with these steps; gives its name."""
    await store(instance, pipeline("retrain", *steps, **more))
    await instance.triggers.handle(committed(1, chain="chain-1"))
    return (await runs(instance))[0].name


async def reached(instance: Instance, name: str, *states: RunState) -> PipelineRun:
    async def there() -> PipelineRun | None:
        value = (await instance.repository.runs.get(name)).value
        return value if value.state in states or (not states and value.state.final) else None

    found: PipelineRun = await eventually(there)
    return found


async def step_running(instance: Instance, name: str, index: int = 0) -> PipelineRun:
    async def there() -> PipelineRun | None:
        value = (await instance.repository.runs.get(name)).value
        return value if value.step_runs[index].resource else None

    found: PipelineRun = await eventually(there)
    return found


async def event_types(instance: Instance, name: str) -> list[str]:
    import json

    found = await instance.repository.runs.database.collection("runs").find_one({"_id": name})
    assert found
    return [json.loads(entry)["type"].removeprefix("pipeline.run.") for entry in found["outbox"]]


async def test_steps_refer_to_the_event_and_to_earlier_steps(platform: PipelinePlatform, instance: Instance) -> None:
    name = await begun(instance, TRAIN, EVALUATE, DEPLOY)
    async with running(instance.driver.run):
        run = await reached(instance, name)
    assert run.state is RunState.SUCCEEDED, run.reason
    desk = platform.fakes.desk
    (trained,), (judged,), (served,) = desk.of("run"), desk.of("evaluation"), desk.of("revision")
    model = f"projects/{PROJECT}/models/digits/versions/1"
    assert trained.request.run.dataset_version == VERSION
    assert judged.request.evaluation.model_version == model
    assert judged.request.evaluation.dataset_version == f"projects/{PROJECT}/datasets/holdout/versions/7"
    assert (served.request.model_version, list(served.request.steps)) == (model, [10, 100])
    assert await event_types(instance, name) == ["started", *["step_ended"] * 3, "succeeded"]


async def test_steps_act_on_behalf_of_the_author_in_the_chain_of_the_last_cause(
    platform: PipelinePlatform, instance: Instance
) -> None:
    name = await begun(instance, TRAIN)
    async with running(instance.driver.run):
        await reached(instance, name)
    (made,) = platform.fakes.desk.made
    assert made.actor == "ann"
    assert made.cause.correlation_id == "chain-1"
    assert made.cause.causation_id == f"{name}@1"


async def test_a_metric_that_is_a_whole_number_stays_a_number_one_can_calculate_with(
    platform: PipelinePlatform, instance: Instance
) -> None:
    judge = replace(EVALUATE, condition="steps.train.metrics.accuracy - 0.005 > 0.9")
    name = await begun(instance, TRAIN, judge)
    async with running(instance.driver.run):
        run = await reached(instance, name)
    assert [step.state for step in run.step_runs] == [StepState.SUCCEEDED, StepState.SUCCEEDED]


async def test_a_step_whose_condition_does_not_hold_is_skipped(platform: PipelinePlatform, instance: Instance) -> None:
    name = await begun(instance, replace(TRAIN, condition="event.data.changed > 10"), replace(EVALUATE, settings={
        "model": "digits", "dataset": "holdout@2"}))  # fmt: skip
    async with running(instance.driver.run):
        run = await reached(instance, name)
    assert [step.state for step in run.step_runs] == [StepState.SKIPPED, StepState.SUCCEEDED]
    assert "does not hold" in run.step_runs[0].reason
    (judged,) = platform.fakes.desk.made
    assert judged.request.evaluation.model_version == f"projects/{PROJECT}/models/digits/versions/4"


async def test_a_step_that_fails_ends_the_run_and_a_retry_goes_on_there(
    platform: PipelinePlatform, instance: Instance
) -> None:
    desk = platform.fakes.desk
    platform.fakes.evaluation.passes = False
    name = await begun(instance, TRAIN, EVALUATE, DEPLOY)
    async with running(instance.driver.run):
        run = await reached(instance, name)
        assert run.state is RunState.FAILED
        assert run.reason == "step judge: the verdict failed: accuracy 0.9"
        assert [step.state for step in run.step_runs] == [StepState.SUCCEEDED, StepState.FAILED, StepState.WAITING]
        with pytest.raises(FailedPrecondition):
            await instance.pipelines.cancel(name)
        platform.fakes.evaluation.passes = True
        await instance.pipelines.retry(name)
        run = await reached(instance, name, RunState.SUCCEEDED)
    assert len(desk.of("run")) == 1
    assert len(desk.of("evaluation")) == 2
    assert len(desk.of("revision")) == 1
    with pytest.raises(FailedPrecondition):
        await instance.pipelines.retry(name)


async def test_a_request_that_is_refused_fails_the_step_with_the_reason(
    platform: PipelinePlatform, instance: Instance
) -> None:
    platform.fakes.desk.refuse = lambda request: InvalidArgument("There is no such algorithm.")
    name = await begun(instance, TRAIN)
    async with running(instance.driver.run):
        run = await reached(instance, name)
    assert (run.state, run.reason) == (RunState.FAILED, "step train: There is no such algorithm.")


async def test_a_setting_that_turns_out_wrong_fails_the_step(platform: PipelinePlatform, instance: Instance) -> None:
    deploy = Step("serve", "deploy", {"endpoint": "live", "model": "digits@1", "steps": ["${event.type}"]})
    name = await begun(instance, deploy)
    async with running(instance.driver.run):
        run = await reached(instance, name)
    assert run.state is RunState.FAILED
    assert "not a whole number" in run.reason


async def test_a_service_that_is_down_is_waited_for(platform: PipelinePlatform, instance: Instance) -> None:
    desk = platform.fakes.desk
    desk.refuse = lambda request: Unavailable("not now") if desk.calls < 3 else None
    name = await begun(instance, TRAIN)
    async with running(instance.driver.run):
        run = await reached(instance, name)
    assert run.state is RunState.SUCCEEDED
    assert len(desk.made) == 1


async def test_cancelling_a_run_cancels_what_its_step_made(platform: PipelinePlatform, instance: Instance) -> None:
    desk = platform.fakes.desk
    desk.ends = None
    name = await begun(instance, TRAIN, EVALUATE)
    async with running(instance.driver.run):
        await step_running(instance, name)
        await instance.pipelines.cancel(name)
        run = await reached(instance, name)
    assert run.state is RunState.CANCELLED
    assert desk.cancelled == [desk.made[0].name]
    assert [step.state for step in run.step_runs] == [StepState.CANCELLED, StepState.WAITING]
    assert await event_types(instance, name) == ["started", "step_ended", "cancelled"]
    assert not instance.driver._tasks


@pytest.mark.parametrize("heard", [False, True], ids=["not heard", "heard, its answer lost"])
async def test_a_cancelled_run_ends_while_serving_is_down_and_deploys_nothing_when_it_is_back(
    platform: PipelinePlatform, instance: Instance, heard: bool
) -> None:
    """A shift cannot be cancelled, so it must not be begun to find out whether it had been."""
    desk = platform.fakes.desk
    down = Unavailable("serving is down")
    desk.refuse, desk.silence = (lambda request: None if heard else down), down
    name = await begun(instance, replace(DEPLOY, settings={"endpoint": "live", "model": "digits@1"}))
    async with running(instance.driver.run):
        async with asyncio.timeout(15):
            while not desk.calls:  # noqa: ASYNC110 (the fake tells nobody)
                await asyncio.sleep(0.02)
        await instance.pipelines.cancel(name)
        run = await reached(instance, name)
    assert run.state is RunState.CANCELLED
    (step,) = run.step_runs
    assert (step.state, step.resource) == (StepState.CANCELLED, "")
    assert "left to end" in step.reason
    assert len(desk.made) == (1 if heard else 0)
    assert await event_types(instance, name) == ["started", "cancelled"]


async def test_what_a_dead_process_made_is_cancelled_too(
    platform: PipelinePlatform, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the training service made the run, before the pipeline could write its name down."""
    desk = platform.fakes.desk
    desk.ends = None
    name = await begun(instance, TRAIN)
    faults = KilledWrites(monkeypatch, carried_out=False)
    with faults.kill_at(2):
        await faults.killed_or(instance.driver.run)
    assert faults.fired
    assert len(desk.made) == 1
    second = platform.instance()
    await second.pipelines.cancel(name)
    async with running(second.driver.run):
        run = await reached(second, name)
    assert run.state is RunState.CANCELLED
    assert desk.cancelled == [desk.made[0].name]
    assert len(desk.made) == 1


async def test_a_restart_goes_on_with_what_the_step_made(platform: PipelinePlatform, instance: Instance) -> None:
    desk = platform.fakes.desk
    desk.ends = None
    name = await begun(instance, TRAIN)
    async with running(instance.driver.run):
        await step_running(instance, name)
    second = platform.instance()
    async with running(second.driver.run):
        await asyncio.sleep(0.1)
        await desk.end(desk.made[0].name)
        run = await reached(second, name)
    assert run.state is RunState.SUCCEEDED
    assert len(desk.made) == 1


async def test_a_kill_at_any_write_makes_each_resource_once(
    platform: PipelinePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = KilledWrites(monkeypatch, carried_out=False)
    desk = platform.fakes.desk
    total = k = fired = 0
    while k <= total:
        instance = platform.instance()
        name = await begun(instance, TRAIN, EVALUATE)
        desk.made.clear()
        with faults.kill_at(k):
            await faults.killed_or(lambda name=name, instance=instance: drive(instance, name))  # type: ignore[misc]
        total, fired = total or faults.count, fired + faults.fired
        second = platform.instance()
        await drive(second, name)
        run = (await second.repository.runs.get(name)).value
        assert run.state is RunState.SUCCEEDED
        assert len(desk.of("run")) == 1
        assert len(desk.of("evaluation")) == 1
        assert await event_types(second, name) == ["started", "step_ended", "step_ended", "succeeded"]
        for collection in ("runs", "windows", "decisions", "pipelines"):
            await platform.database.collection(collection).delete_many({})
        desk._by_request.clear()
        k += 1
    assert (total, fired) == (7, 7)


async def drive(instance: Instance, name: str) -> None:
    async with running(instance.driver.run):
        await reached(instance, name)


async def test_two_drivers_of_one_run_make_each_resource_once(platform: PipelinePlatform, instance: Instance) -> None:
    name = await begun(instance, TRAIN, EVALUATE)
    second = platform.instance()
    async with running(instance.driver.run, second.driver.run):
        run = await reached(instance, name)
    assert run.state is RunState.SUCCEEDED
    assert len(platform.fakes.desk.made) == 2
    assert await event_types(instance, name) == ["started", "step_ended", "step_ended", "succeeded"]
