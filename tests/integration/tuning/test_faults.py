"""Promise: a study loses no trial, asks and counts none twice, and ends, whatever dies when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.tuning.v1 import tuning_service_pb2 as pb
from penstock.errors import InvalidArgument, NotFound, PenstockError
from penstock.rpc.structs import from_struct, to_struct
from tests.support.faults import KilledWrites
from tests.support.training_platform import PARENT
from tests.support.tuning_platform import TuningPlatform


async def check(platform: TuningPlatform, name: str, trials: int) -> None:
    """Every trial has one run, was told once and counted once; the study ended once."""
    found = await platform.trials(name)
    assert [trial.number for trial in found] == list(range(1, trials + 1))
    runs = [run for run in await platform.runs() if run.trial.startswith(f"{name}/")]
    assert sorted(run.name for run in runs) == sorted(trial.run for trial in found)
    events = await platform.events(name)
    assert [event["sequence"] for event in events] == list(range(1, trials + 3))
    assert [event["type"] for event in events] == [
        "tuning.study.started",
        *["tuning.trial.completed"] * trials,
        "tuning.study.completed",
    ]
    assert len({event["data"]["trial"] for event in events[1:-1]}) == trials


async def test_a_service_that_comes_back_goes_on_with_its_studies(platform: TuningPlatform, version: str) -> None:
    study = platform.study(version, max_trials=4, parallelism=1)
    undisturbed = await platform.create(study, "undisturbed")
    await platform.ended(undisturbed)
    name = await platform.create(study, "disturbed")
    for _ in range(3):
        await asyncio.sleep(0.7)
        await platform.kill()
        await platform.start()
    done = await platform.ended(name)
    assert done.state == pb.Study.SUCCEEDED
    await check(platform, name, 4)
    points = [
        [from_struct(trial.parameters) for trial in await platform.trials(found)] for found in (undisturbed, name)
    ]
    assert points[0] == points[1]


async def test_two_reconcilers_at_once_do_everything_once(platform: TuningPlatform, version: str) -> None:
    await platform.start()  # a second instance beside the first
    name = await platform.create(platform.study(version, max_trials=6, parallelism=3))
    assert (await platform.ended(name)).state == pb.Study.SUCCEEDED
    await check(platform, name, 6)


@pytest.mark.parametrize("carried_out", [False, True], ids=["before the write", "after the write"])
async def test_a_kill_at_any_write_loses_and_doubles_nothing(
    platform: TuningPlatform, version: str, monkeypatch: pytest.MonkeyPatch, carried_out: bool
) -> None:
    faults = KilledWrites(monkeypatch, carried_out=carried_out)
    study = platform.study(version, max_trials=1, parallelism=1)

    async def one(kill_at: int) -> bool:
        """A study of one trial, with both services killed at that write and started again."""
        id = f"killed-{kill_at}"
        request = pb.CreateStudyRequest(parent=PARENT, study_id=id, study=study, request_id=id)
        name = f"{PARENT}/studies/{id}"
        with faults.kill_at(kill_at):
            await faults.killed_or(lambda: platform.stub().CreateStudy(request))
            if not faults.fired:
                await faults.killed_or(lambda: platform.ended(name))
        if faults.fired:
            await platform.kill()
            await platform.start()
            await platform.stub().CreateStudy(request)
        assert (await platform.ended(name)).state == pb.Study.SUCCEEDED
        await check(platform, name, 1)
        return faults.fired

    assert not await one(0)
    writes = faults.count
    assert writes >= 12
    for number in range(1, writes + 1):
        assert await one(number), f"write {number} was never reached"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("study.dataset_version", {"dataset_version": "projects/vision/datasets/shapes/versions/8"}),
        ("study.code.git.url", {"code": training_pb.Code(git=training_pb.GitSource(url="/nowhere/at/all"))}),
        ("study.code", {"code": None}),
        ("study.command", {"command": []}),
        ("study.space", {"space": []}),
        ("study.objective.direction", {"objective": pb.Objective(metric="score")}),
        ("study.space[0].name", {"parameters": to_struct({"x": 1})}),
        ("study.resources.cpu", {"resources": training_pb.Resources(cpu=1000)}),
    ],
)
async def test_a_study_whose_trials_could_never_run_is_refused_by_its_field(
    platform: TuningPlatform, version: str, field: str, change: dict[str, Any]
) -> None:
    with pytest.raises(PenstockError) as refused:
        await platform.create(platform.study(version, **change))
    assert isinstance(refused.value, InvalidArgument | NotFound)
    assert field in [violation.field for violation in refused.value.violations]
    assert not (await platform.stub().ListStudies(pb.ListStudiesRequest(parent=PARENT))).studies
