"""Folders of jobs that have ended go, whoever was killed when, and do not come back."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from penstock.api.training.v1 import training_service_pb2 as pb
from services.training.attempts import Attempts
from services.training.jobs import job_id
from services.training.model import Fenced, Run
from tests.integration.training.test_faults import stored
from tests.integration.training.test_runs import until_logged
from tests.support.training_platform import PARENT, TrainingPlatform, wait_for


async def test_a_kill_between_the_end_and_the_removal_leaves_no_folder_after_a_restart(
    platform: TrainingPlatform, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(self: Attempts, run: Run) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(Attempts, "forget", dies)
        first = await platform.start()
        ended = await platform.submit(platform.stub(), version, "true")
        await wait_for(platform.stub(), ended, pb.Run.SUCCEEDED)
        goes_on = await platform.submit(platform.stub(), version, "echo begun; sleep 60")
        await until_logged(platform.stub(), goes_on, b"begun")
        await first.kill()
    gone = job_id(f"{PARENT}/runs/gone")  # of a run that a restored database does not know
    (platform.root / "jobs" / gone / "1").mkdir(parents=True)
    assert set(await platform.executor.jobs("run.")) == {job_id(ended), job_id(goes_on), gone}
    await platform.start()
    async with asyncio.timeout(20):
        while await platform.executor.jobs("run.") != [job_id(goes_on)]:  # noqa: ASYNC110 (a folder tells nobody)
            await asyncio.sleep(0.05)
    shown = await platform.stub().GetRun(pb.GetRunRequest(name=goes_on))
    assert (shown.state, shown.attempt) == (pb.Run.RUNNING, 1)


async def test_an_old_copy_of_a_run_that_was_cancelled_makes_no_folder_again(
    platform: TrainingPlatform, version: str
) -> None:
    """It was read just before another process ended the run and removed its job's folder."""
    instance = await platform.start()
    name = await platform.submit(platform.stub(), version, "echo begun; sleep 60")
    await until_logged(platform.stub(), name, b"begun")
    os.kill(platform.shim(name), signal.SIGSTOP)  # so that it leaves no result
    await platform.stub().CancelRun(pb.CancelRunRequest(name=name))
    await wait_for(platform.stub(), name, pb.Run.CANCELLING)
    old = await stored(instance, name)
    os.kill(platform.shim(name), signal.SIGKILL)
    await wait_for(platform.stub(), name, pb.Run.CANCELLED)
    async with asyncio.timeout(20):
        while await platform.executor.jobs("run."):  # noqa: ASYNC110 (a folder tells nobody)
            await asyncio.sleep(0.05)
    with pytest.raises(Fenced):
        await instance.training.reconciler._attempts.cancel(old)
    assert not await platform.executor.jobs("run.")
