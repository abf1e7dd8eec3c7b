"""Folders of jobs that have ended go, whoever was killed when, and do not come back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb
from services.evaluation.jobs import PREFIX
from services.evaluation.model import Evaluation, State
from services.evaluation.reconciler import Reconciler
from tests.integration.evaluation.conftest import Given, folders_gone, losing, types
from tests.support.evaluation_platform import EvaluationPlatform

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_kill_between_the_end_and_the_removal_leaves_no_folder_after_a_restart(
    platform: EvaluationPlatform, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(self: Reconciler, evaluation: Evaluation) -> None:
        await asyncio.Event().wait()

    executor = losing(platform, 3)
    with monkeypatch.context() as patched:
        patched.setattr(Reconciler, "_clean_up", dies)
        first = await platform.start(executor)
        made = await platform.create(given.good, given.data)
        assert (await platform.ended(made.name)).state == pb.Evaluation.FAILED
        await first.kill()
    assert await platform.executor.jobs(PREFIX)
    second = await platform.start()
    await folders_gone(platform)
    assert types(await platform.events(made.name)) == ["evaluation.failed"]
    await second.kill()


async def test_an_old_copy_of_an_evaluation_that_has_ended_starts_nothing(
    platform: EvaluationPlatform, given: Given
) -> None:
    """It was read just before another process ended the evaluation and removed its job's folder."""
    executor = losing(platform, 3)
    instance = await platform.start(executor)
    made = await platform.create(given.good, given.data)
    await platform.ended(made.name)
    await folders_gone(platform)
    ended = (await instance.repository.evaluations.get(made.name)).value
    assert (await instance.reconciler._step(replace(ended, state=State.RUNNING))).state is State.FAILED
    assert not await platform.executor.jobs(PREFIX)
    await instance.kill()
