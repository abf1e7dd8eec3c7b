"""Studies from end to end; their trials are real jobs."""

from __future__ import annotations

import asyncio

import pytest

from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.tuning.v1 import tuning_service_pb2 as pb
from penstock.errors import AlreadyExists, FailedPrecondition, NotFound
from penstock.rpc.structs import from_struct, to_struct
from tests.support.training_platform import PARENT, wait_for
from tests.support.tuning_platform import SCORES_X, TuningPlatform, categories


async def test_the_best_trial_of_a_study_becomes_a_model_version(platform: TuningPlatform, version: str) -> None:
    name = await platform.create(platform.study(version), "search")
    done = await platform.ended(name)
    assert (done.state, done.trials_completed, done.trials_running, done.trials_failed) == (pb.Study.SUCCEEDED, 4, 0, 0)
    trials = await platform.trials(name)
    assert [trial.number for trial in trials] == [1, 2, 3, 4]
    assert all(trial.state == pb.Trial.COMPLETED for trial in trials)
    assert all(trial.value == pytest.approx(from_struct(trial.parameters)["x"]) for trial in trials)
    best = max(trials, key=lambda trial: trial.value)
    assert (done.best_trial, done.best_value) == (best.name, best.value)
    assert done.model_version == f"{PARENT}/models/search/versions/1"
    made = await platform.training.stub().GetModelVersion(training_pb.GetModelVersionRequest(name=done.model_version))
    assert (made.run, made.study, made.author) == (best.run, name, "mo")
    events = await platform.events(name)
    assert [event["type"] for event in events] == [
        "tuning.study.started",
        *["tuning.trial.completed"] * 4,
        "tuning.study.completed",
    ]
    assert {event["data"]["trial"] for event in events[1:-1]} == {trial.name for trial in trials}
    assert len({event["correlation_id"] for event in events}) == 1
    runs = await platform.runs()
    assert sorted(run.trial for run in runs) == [trial.name for trial in trials] and runs[0].author == "mo"


async def test_a_study_searches_a_built_in_with_fixed_parameters(platform: TuningPlatform, version: str) -> None:
    space = [
        pb.ParameterSpace(name="C", float=pb.FloatRange(low=0.01, high=10, log=True)),
        pb.ParameterSpace(name="max_iter", int=pb.IntRange(low=50, high=100)),
        categories("balanced", True, False),
    ]
    study = pb.Study(
        dataset_version=version,
        code=training_pb.Code(algorithm="logistic-regression"),
        parameters=to_struct({"seed": 3}),
        space=space,
        objective=pb.Objective(metric="log_loss", direction=pb.Objective.MINIMIZE),
        max_trials=2,
        model="shapes",
    )
    done = await platform.ended(await platform.create(study))
    assert done.state == pb.Study.SUCCEEDED and done.model_version.startswith(f"{PARENT}/models/shapes/")
    first = from_struct((await platform.runs())[0].parameters)
    assert first["seed"] == 3 and isinstance(first["max_iter"], int) and isinstance(first["balanced"], bool)


async def test_the_same_seed_gives_the_same_trials(platform: TuningPlatform, version: str) -> None:
    study = platform.study(version, max_trials=5, parallelism=1)
    found = []
    for id in ("first", "second"):
        name = await platform.create(study, id)
        await platform.ended(name)
        found.append([from_struct(trial.parameters) for trial in await platform.trials(name)])
    assert found[0] == found[1] and len({trial["x"] for trial in found[0]}) == 5


async def test_a_study_whose_first_trials_all_fail_fails_with_the_last_reason(
    platform: TuningPlatform, version: str
) -> None:
    name = await platform.create(platform.study(version, "echo no luck; exit 4", max_trials=50, parallelism=3))
    failed = await platform.ended(name)
    assert failed.state == pb.Study.FAILED and "no luck" in failed.reason and "failed" in failed.reason
    assert 5 <= failed.trials_failed <= 7 and len(await platform.trials(name)) <= 7
    events = [event["type"] for event in await platform.events(name)]
    assert events[0] == "tuning.study.started" and events[-1] == "tuning.study.failed"
    assert set(events[1:-1]) == {"tuning.trial.failed"}


async def test_trials_that_fail_are_counted_and_the_rest_goes_on(platform: TuningPlatform, version: str) -> None:
    script = 'case "$(cat "$PENSTOCK_PARAMS")" in *true*) exit 1;; esac' + SCORES_X
    space = [
        pb.ParameterSpace(name="x", float=pb.FloatRange(low=0, high=1)),
        categories("fail", True, False),
    ]
    study = platform.study(version, script, space=space, max_trials=6, sampler=pb.Sampler(kind=pb.Sampler.RANDOM))
    done = await platform.ended(await platform.create(study))
    assert done.state == pb.Study.SUCCEEDED
    trials = await platform.trials(done.name)
    failed = [trial for trial in trials if from_struct(trial.parameters)["fail"]]
    assert 1 <= len(failed) <= 5 and all(trial.state == pb.Trial.FAILED and trial.reason for trial in failed)
    assert (done.trials_failed, done.trials_completed) == (len(failed), 6 - len(failed))


async def test_a_metric_that_is_never_reported_fails_the_trial(platform: TuningPlatform, version: str) -> None:
    objective = pb.Objective(metric="acuracy", direction=pb.Objective.MAXIMIZE)
    failed = await platform.ended(await platform.create(platform.study(version, objective=objective, max_trials=1)))
    assert failed.state == pb.Study.FAILED
    assert "'acuracy'" in failed.reason and "score" in failed.reason


async def test_a_stopped_study_cancels_what_runs_and_keeps_what_was_told(
    platform: TuningPlatform, version: str
) -> None:
    script = SCORES_X + '\nif [ "${x#0.0}" = "$x" ]; then exit 0; fi; sleep 60'
    space = [categories("x", 0.01, 0.5)]
    name = await platform.create(platform.study(version, script, space=space, max_trials=50, parallelism=3))
    async with asyncio.timeout(60):
        async for study in platform.stub().WatchStudy(pb.WatchStudyRequest(name=name)):
            if study.trials_completed:
                break
    stub = platform.stub()
    assert (await stub.CancelStudy(pb.CancelStudyRequest(name=name))).state == pb.Study.STOPPING
    done = await platform.ended(name)
    assert done.state == pb.Study.SUCCEEDED and "stopped" in done.reason and done.best_value == 0.5
    trials = await platform.trials(name)
    assert all(trial.state != pb.Trial.RUNNING for trial in trials) and len(trials) < 50
    assert all(run.state != training_pb.Run.RUNNING for run in await platform.runs())
    with pytest.raises(FailedPrecondition):
        await stub.CancelStudy(pb.CancelStudyRequest(name=name))


async def test_a_study_stopped_before_a_trial_was_completed_is_cancelled(
    platform: TuningPlatform, version: str
) -> None:
    name = await platform.create(platform.study(version, "sleep 60"))
    async with asyncio.timeout(30):
        while not (runs := await platform.runs()):  # noqa: ASYNC110 - the truth is in the database
            await asyncio.sleep(0.05)
    await wait_for(platform.training.stub(), runs[0].name, training_pb.Run.RUNNING)
    await platform.stub().CancelStudy(pb.CancelStudyRequest(name=name))
    done = await platform.ended(name)
    assert done.state == pb.Study.CANCELLED and not done.model_version
    assert (await platform.events(name))[-1]["type"] == "tuning.study.failed"


async def test_the_same_request_gives_its_study_for_ever_unless_it_chose_the_name(
    platform: TuningPlatform, version: str
) -> None:
    """A day later the store has forgotten the request, but a pipeline that was down meanwhile sends it again."""
    stub = platform.stub()
    study = platform.study(version, max_trials=1)
    unnamed = pb.CreateStudyRequest(parent=PARENT, study=study, request_id="late")
    named = pb.CreateStudyRequest(parent=PARENT, study_id="chosen", study=study, request_id="late")
    first = await stub.CreateStudy(unnamed)
    await stub.CreateStudy(named)
    await platform.database.collection("studies").update_many({}, {"$set": {"requests": []}})
    assert (await stub.CreateStudy(unnamed)).name == first.name
    with pytest.raises(AlreadyExists):
        await stub.CreateStudy(named)


async def test_the_same_request_makes_one_study(platform: TuningPlatform, version: str) -> None:
    stub = platform.stub()
    study = platform.study(version, max_trials=1)
    request = pb.CreateStudyRequest(parent=PARENT, study_id="one", study=study, request_id="once")
    first, second = await stub.CreateStudy(request), await stub.CreateStudy(request)
    assert first.name == second.name
    with pytest.raises(AlreadyExists):
        await stub.CreateStudy(pb.CreateStudyRequest(parent=PARENT, study_id="one", study=study))
    assert [found.name for found in (await stub.ListStudies(pb.ListStudiesRequest(parent=PARENT))).studies] == [
        first.name
    ]
    with pytest.raises(NotFound):
        await stub.GetStudy(pb.GetStudyRequest(name=f"{PARENT}/studies/none"))
    with pytest.raises(NotFound):
        await stub.ListTrials(pb.ListTrialsRequest(parent=f"{PARENT}/studies/none"))
