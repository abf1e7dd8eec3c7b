"""Promise: however an evaluation's job, or the service, ends, one completion is accepted."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb
from penstock.errors import FailedPrecondition
from penstock.jobs.local import LocalExecutor
from penstock.jobs.spec import JobSpec
from tests.integration.evaluation.conftest import Given, folders_gone, losing, types
from tests.support.evaluation_platform import PROJECT, ROWS, EvaluationPlatform
from tests.support.faults import KilledWrites

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_lost_attempt_is_followed_by_another_and_one_completion_is_accepted(
    platform: EvaluationPlatform, given: Given
) -> None:
    executor = losing(platform, 1)
    instance = await platform.start(executor)
    made = await platform.create(given.good, given.data)
    done = await platform.ended(made.name)
    assert (done.state, done.attempt, done.reason) == (pb.Evaluation.SUCCEEDED, 2, "")
    assert types(await platform.events(made.name)) == ["evaluation.completed"]
    await instance.kill()


async def test_after_three_lost_attempts_it_has_failed(platform: EvaluationPlatform, given: Given) -> None:
    executor = losing(platform, 3)
    instance = await platform.start(executor)
    made = await platform.create(given.good, given.data)
    done = await platform.ended(made.name)
    assert (done.state, done.attempt) == (pb.Evaluation.FAILED, 3)
    assert "tried 3 times" in done.reason
    assert types(await platform.events(made.name)) == ["evaluation.failed"]
    await folders_gone(platform)
    await instance.kill()


async def test_cancelling_ends_it_whatever_it_waits_for(platform: EvaluationPlatform, given: Given) -> None:
    instance = await platform.start()
    platform.datasets.withhold()
    try:
        made = await platform.create(given.good, given.data)
        asked = await platform.stub().CancelEvaluation(pb.CancelEvaluationRequest(name=made.name))
        assert asked.state == pb.Evaluation.CANCELLING
        await platform.stub().CancelEvaluation(pb.CancelEvaluationRequest(name=made.name))
    finally:
        platform.datasets.release()
    ended = await platform.ended(made.name)
    assert (ended.state, ended.reason) == (pb.Evaluation.CANCELLED, "cancelled")
    (told,) = await platform.events(made.name)
    assert (told["type"], told["data"]["reason"]) == ("evaluation.failed", "cancelled")
    with pytest.raises(FailedPrecondition):
        await platform.stub().CancelEvaluation(pb.CancelEvaluationRequest(name=made.name))
    await instance.kill()


async def test_cancelling_one_whose_job_runs_ends_the_job(platform: EvaluationPlatform, given: Given) -> None:
    instance = await platform.start(run=False)
    made = await platform.create(given.good, given.data)
    executor = Held(platform.root / "jobs", (platform.root / "objects").as_uri())
    instance.reconciler.executor = executor
    instance.run()
    await executor.started.wait()
    await platform.stub().CancelEvaluation(pb.CancelEvaluationRequest(name=made.name))
    executor.go.set()
    assert (await platform.ended(made.name)).state == pb.Evaluation.CANCELLED
    await folders_gone(platform)
    await instance.kill()


class Held(LocalExecutor):
    """Stops between the start of a job and anything that follows, until told to go on."""

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root, url, idle=20)
        self.started, self.go = asyncio.Event(), asyncio.Event()

    async def start(self, spec: JobSpec) -> None:
        await super().start(spec)
        self.started.set()
        await self.go.wait()


async def test_a_restart_adopts_the_job_that_runs(platform: EvaluationPlatform, given: Given) -> None:
    executor = Held(platform.root / "jobs", (platform.root / "objects").as_uri())
    first = await platform.start(executor)
    made = await platform.create(given.good, given.data)
    await executor.started.wait()
    await first.kill()
    second = await platform.start()
    done = await platform.ended(made.name)
    assert (done.state, done.attempt) == (pb.Evaluation.SUCCEEDED, 1)
    assert types(await platform.events(made.name)) == ["evaluation.completed"]
    await second.kill()


async def test_two_instances_accept_one_completion(platform: EvaluationPlatform, given: Given) -> None:
    instances = [await platform.start(), await platform.start()]
    names = [(await platform.create(given.good, given.data, rule="accuracy > 0.5")).name for _ in range(2)]
    for name in names:
        done = await platform.ended(name)
        assert (done.state, done.attempt) == (pb.Evaluation.SUCCEEDED, 1)
        assert types(await platform.events(name)) == ["evaluation.completed", "evaluation.verdict.passed"]
    for instance in instances:
        await instance.kill()


async def test_a_kill_at_any_write_ends_in_one_completion_and_one_baseline(
    platform: EvaluationPlatform, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = KilledWrites(monkeypatch, carried_out=False)
    total = k = fired = 0
    while k <= total:
        data = platform.datasets.add(PROJECT, "sizes", ROWS[:4], label="kind", number=100 + k)
        instance = await platform.start(run=False)
        made = await platform.create(given.good, data, rule="accuracy >= baseline", baseline=given.bad)
        with faults.kill_at(k):
            instance.run()
            await faults.killed_or(lambda name=made.name: platform.ended(name))  # type: ignore[misc]
        with contextlib.suppress(BaseException):
            await instance.kill()
        total, fired = total or faults.count, fired + faults.fired
        second = await platform.start()
        done = await platform.ended(made.name)
        await second.kill()
        assert done.state == pb.Evaluation.SUCCEEDED, done.reason
        assert len(types(await platform.events(made.name))) == 2
        stored: list[Any] = await second.repository.evaluations.find()
        assert len([e for e in stored if e.value.dataset_version == data]) == 2
        k += 1
    assert fired == total
    assert total >= 7
