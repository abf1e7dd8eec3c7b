"""Runs from end to end, on real jobs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.errors import AlreadyExists, FailedPrecondition
from tests.support.training_platform import PARENT, TrainingPlatform, collect, wait_for

ENDED = ["training.run.queued", "training.run.started"]


async def test_a_built_in_run_makes_a_model_version(platform: TrainingPlatform, version: str) -> None:
    instance = await platform.start()
    stub = platform.stub()
    name = await platform.submit_built_in(stub, version, model="shapes")
    done = await wait_for(stub, name, pb.Run.SUCCEEDED)
    assert done.model_version == f"{PARENT}/models/shapes/versions/1"
    assert done.metrics["accuracy"] > 0.5 and done.manifest
    registered = await stub.GetModelVersion(pb.GetModelVersionRequest(name=done.model_version))
    assert (registered.run, registered.dataset_version, registered.task) == (done.name, version, "classification")
    assert list(registered.labels) == ["big", "small"]
    assert registered.metrics == done.metrics and registered.algorithm == "logistic-regression"
    assert await platform.events(instance, name) == [*ENDED, "training.run.succeeded"]
    assert await platform.events(instance, f"{PARENT}/models/shapes") == ["training.model.registered"]
    chunks = await collect(stub.ReadModelFile(pb.ReadModelFileRequest(name=registered.name, path="model.onnx")))
    assert sum(len(chunk.data) for chunk in chunks) == next(f.size for f in registered.files if f.path == "model.onnx")


async def test_the_same_request_makes_one_run(platform: TrainingPlatform, version: str) -> None:
    await platform.start(reconcile=False)
    stub = platform.stub()
    run = pb.Run(dataset_version=version, code=pb.Code(algorithm="mlp"))
    request = pb.CreateRunRequest(parent=PARENT, run=run, request_id="once")
    first, second = await stub.CreateRun(request), await stub.CreateRun(request)
    assert first == second
    run.model = "other"
    with pytest.raises(AlreadyExists, match="request id was used for something else"):
        await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run, request_id="once"))
    assert len((await stub.ListRuns(pb.ListRunsRequest(parent=PARENT))).runs) == 1


async def test_code_of_ones_own_reports_metrics_and_leaves_artifacts(platform: TrainingPlatform, version: str) -> None:
    await platform.start()
    stub = platform.stub()
    script = """
        ls "$PENSTOCK_INPUT_DIR"/train
        for step in 1 2 3; do
            echo "{\\"step\\": $step, \\"loss\\": 0.$step, \\"norm\\": \\"NaN\\"}" >> "$PENSTOCK_METRICS"
        done
        mkdir "$PENSTOCK_OUTPUT_DIR/plots"; echo 1,2,3 > "$PENSTOCK_OUTPUT_DIR/plots/loss.csv"
    """
    name = await platform.submit(stub, version, script, labels={"team": "shapes"})
    done = await wait_for(stub, name, pb.Run.SUCCEEDED)
    assert len(done.code.git.commit) == 40 and done.labels["team"] == "shapes"
    assert done.metrics["loss"] == 0.3 and str(done.metrics["norm"]) == "nan"
    listed = await stub.ListMetrics(pb.ListMetricsRequest(name=name, metric="loss"))
    assert [(metric.step, metric.value) for metric in listed.metrics] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert [artifact.path for artifact in done.artifacts] == ["plots/loss.csv"]
    chunks = await collect(stub.ReadArtifact(pb.ReadArtifactRequest(name=name, path="plots/loss.csv")))
    assert b"".join(chunk.data for chunk in chunks) == b"1,2,3\n"
    with pytest.raises(FailedPrecondition, match="no model"):
        await stub.CreateModelVersion(pb.CreateModelVersionRequest(parent=f"{PARENT}/models/m", run=name))


async def test_code_that_fails_ends_the_run_with_its_last_20_lines(platform: TrainingPlatform, version: str) -> None:
    instance = await platform.start()
    stub = platform.stub()
    name = await platform.submit(stub, version, "for n in $(seq 30); do echo line $n; done; exit 3")
    failed = await wait_for(stub, name, pb.Run.FAILED)
    assert "3" in failed.reason.splitlines()[0] and "exit" in failed.reason.splitlines()[0].lower()
    shown = [line for line in failed.reason.splitlines() if line.startswith("line ")]
    assert shown == [f"line {n}" for n in range(11, 31)]
    assert (failed.attempt, failed.attempts[0].state, failed.attempts[0].exit_code) == (1, pb.Attempt.FAILED, 3)
    assert await platform.events(instance, name) == [*ENDED, "training.run.failed"]


async def test_a_run_that_should_make_a_model_and_writes_none_fails(platform: TrainingPlatform, version: str) -> None:
    await platform.start()
    stub = platform.stub()
    name = await platform.submit(stub, version, "echo trained", model="shapes")
    failed = await wait_for(stub, name, pb.Run.FAILED)
    assert "model.onnx" in failed.reason and "wrote no" in failed.reason


async def test_a_model_whose_card_does_not_describe_it_fails_the_run(platform: TrainingPlatform, version: str) -> None:
    await platform.start()
    stub = platform.stub()
    card = (
        '{"task": "classification", "signature": {"inputs": [1], "outputs": [1]}, '
        '"examples": {"inputs": [{"shape": [8]}], "outputs": [{"shape": [8]}]}}'
    )
    script = f"""
        mkdir "$PENSTOCK_OUTPUT_DIR/model"; echo no > "$PENSTOCK_OUTPUT_DIR/model/model.onnx"
        echo '{card}' > "$PENSTOCK_OUTPUT_DIR/model/model.json"
    """
    name = await platform.submit(stub, version, script, model="shapes")
    failed = await wait_for(stub, name, pb.Run.FAILED)
    assert "model.json" in failed.reason
    assert not (await stub.ListModels(pb.ListModelsRequest(parent=PARENT))).models


async def test_a_queued_run_waits_for_its_manifest_and_can_be_cancelled(
    platform: TrainingPlatform, version: str
) -> None:
    instance = await platform.start()
    stub = platform.stub()
    platform.datasets.withhold()
    first, second = [await platform.submit(stub, version, "echo done") for _ in range(2)]
    await asyncio.sleep(0.3)
    waiting = await stub.GetRun(pb.GetRunRequest(name=first))
    assert waiting.state == pb.Run.QUEUED and "dataset version" in waiting.reason
    assert (await stub.CancelRun(pb.CancelRunRequest(name=first))).state == pb.Run.CANCELLED
    platform.datasets.release()
    await wait_for(stub, second, pb.Run.SUCCEEDED)
    assert (await stub.GetRun(pb.GetRunRequest(name=first))).state == pb.Run.CANCELLED
    assert await platform.events(instance, first) == ["training.run.queued", "training.run.cancelled"]


async def test_a_running_run_that_is_cancelled_ends_cancelled_with_its_log(
    platform: TrainingPlatform, version: str
) -> None:
    instance = await platform.start()
    stub = platform.stub()
    name = await platform.submit(stub, version, "echo begun; sleep 60")
    await until_logged(stub, name, b"begun")
    assert (await stub.CancelRun(pb.CancelRunRequest(name=name))).state == pb.Run.CANCELLING
    cancelled = await wait_for(stub, name, pb.Run.CANCELLED)
    assert cancelled.attempts[0].state == pb.Attempt.CANCELLED
    assert await platform.events(instance, name) == [*ENDED, "training.run.cancelled"]
    assert b"begun" in await log_of(stub, name)
    with pytest.raises(FailedPrecondition, match="ended"):
        done = await platform.submit(stub, version, "echo done")
        await wait_for(stub, done, pb.Run.SUCCEEDED)
        await stub.CancelRun(pb.CancelRunRequest(name=done))


async def test_a_run_beyond_its_timeout_fails_and_says_so(platform: TrainingPlatform, version: str) -> None:
    await platform.start()
    stub = platform.stub()
    resources = pb.Resources()
    resources.timeout.FromMilliseconds(500)
    name = await platform.submit(stub, version, "sleep 60", resources=resources)
    failed = await wait_for(stub, name, pb.Run.FAILED)
    assert "time" in failed.reason and failed.attempt == 1


async def test_runs_beyond_the_cores_wait_for_a_slot(platform: TrainingPlatform, version: str) -> None:
    platform.cores = 1.0
    await platform.start()
    stub = platform.stub()
    first = await platform.submit(stub, version, "sleep 1.5")
    second = await platform.submit(stub, version, "echo done")
    await wait_for(stub, first, pb.Run.RUNNING)
    waiting = await stub.GetRun(pb.GetRunRequest(name=second))
    assert waiting.state == pb.Run.QUEUED
    done = await wait_for(stub, second, pb.Run.SUCCEEDED)
    earlier = await stub.GetRun(pb.GetRunRequest(name=first))
    assert done.start_time.ToDatetime() >= earlier.end_time.ToDatetime()


async def test_a_watched_run_is_seen_to_its_end(platform: TrainingPlatform, version: str) -> None:
    await platform.start()
    stub = platform.stub()
    name = await platform.submit(stub, version, "echo done")
    seen = await collect(stub.WatchRun(pb.WatchRunRequest(name=name)))
    assert [run.state for run in seen][-1] == pb.Run.SUCCEEDED
    assert len({run.etag for run in seen}) == len(seen)


async def test_a_log_is_followed_while_it_is_written_and_read_after(platform: TrainingPlatform, version: str) -> None:
    await platform.start()
    stub = platform.stub()
    name = await platform.submit(stub, version, "for n in 1 2 3 4 5; do echo line $n; sleep 0.1; done")
    followed = await log_of(stub, name, follow=True)
    assert [line for line in followed.splitlines() if line.startswith(b"line")] == [b"line %d" % n for n in range(1, 6)]
    await wait_for(stub, name, pb.Run.SUCCEEDED)
    whole = await log_of(stub, name)
    assert whole == followed
    assert await log_of(stub, name, tail=2) == b"".join(whole.splitlines(keepends=True)[-2:])
    assert await log_of(stub, name, offset=4) == whole[4:]
    assert await log_of(stub, name, tail=1000) == whole


async def log_of(stub: Any, name: str, **more: Any) -> bytes:
    """The log as ReadLog gives it."""
    chunks = await collect(stub.ReadLog(pb.ReadLogRequest(name=name, **more)))
    assert all(chunk.attempt >= 1 and chunk.attempt == more.get("attempt", chunk.attempt) for chunk in chunks)
    return b"".join(chunk.data for chunk in chunks)


async def until_logged(stub: Any, name: str, text: bytes) -> None:
    """Wait until the command has printed something."""
    async with asyncio.timeout(20):
        async for chunk in stub.ReadLog(pb.ReadLogRequest(name=name, follow=True)):
            if text in chunk.data:
                return
