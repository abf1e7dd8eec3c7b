"""Promise: whatever dies when, a run has one accepted completion, and a model one version of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.jobs.attempt import Attempt
from penstock.jobs.result import JobResult, JobState, Output
from penstock.jobs.spec import AttemptRef
from penstock.objects import TreeFile
from penstock.objects.trees import put_manifest
from penstock.runner.processes import alive
from services.training import model
from services.training.jobs import job_id, prefix, ref_of
from services.training.model import Fenced, Run, RunState
from tests.integration.training.test_runs import ENDED, log_of, until_logged
from tests.support.faults import KilledWrites
from tests.support.sample_model import model_files
from tests.support.training_platform import PARENT, Instance, TrainingPlatform, wait_for

WAITS_AT_FIRST = """
    if [ ! -e "$PENSTOCK_CHECKPOINT_DIR/again" ]; then
        touch "$PENSTOCK_CHECKPOINT_DIR/again"; echo begun; sleep 60
    fi
    echo begun
    echo "the second time"
"""


async def test_a_shim_that_is_killed_costs_an_attempt_and_nothing_else(
    platform: TrainingPlatform, version: str
) -> None:
    instance = await platform.start()
    stub = platform.stub()
    name = await platform.submit(stub, version, WAITS_AT_FIRST)
    await until_logged(stub, name, b"begun")
    command = Attempt(platform.root / "jobs" / job_id(name) / "1").identity("command.json")
    assert command is not None
    os.kill(platform.shim(name), signal.SIGKILL)
    done = await wait_for(stub, name, pb.Run.SUCCEEDED)
    assert [attempt.state for attempt in done.attempts] == [pb.Attempt.LOST, pb.Attempt.SUCCEEDED]
    assert await platform.events(instance, name) == [*ENDED, "training.run.started", "training.run.succeeded"]
    assert b"begun" in await log_of(stub, name, attempt=1) and b"the second time" in await log_of(stub, name)
    assert not alive(command)


@pytest.mark.parametrize("retries", [0, 1])
async def test_a_run_whose_every_attempt_is_lost_fails_after_its_retries(
    platform: TrainingPlatform, version: str, retries: int
) -> None:
    await platform.start()
    stub = platform.stub()
    name = await platform.submit(stub, version, "echo begun; sleep 60", max_retries=retries)
    for attempt in range(1, retries + 2):
        await wait_for_attempt(stub, name, attempt)
        await until_logged(stub, name, b"begun")
        os.kill(platform.shim(name, attempt), signal.SIGKILL)
    failed = await wait_for(stub, name, pb.Run.FAILED)
    assert failed.attempt == retries + 1 and f"{retries + 1} attempt" in failed.reason


async def test_a_service_that_comes_back_adopts_what_runs(platform: TrainingPlatform, version: str) -> None:
    first = await platform.start()
    script = """
        echo '{"name": "loss", "value": 1, "step": 1}' >> "$PENSTOCK_METRICS"
        echo begun; sleep 2
        echo '{"name": "loss", "value": 2, "step": 2}' >> "$PENSTOCK_METRICS"
    """
    name = await platform.submit(platform.stub(), version, script)
    await until_logged(platform.stub(), name, b"begun")
    shim = platform.shim(name)
    await first.kill()
    second = await platform.start()
    stub = platform.stub()
    assert platform.shim(name) == shim
    done = await wait_for(stub, name, pb.Run.SUCCEEDED)
    assert done.attempt == 1 and done.metrics["loss"] == 2
    assert await platform.events(second, name) == [*ENDED, "training.run.succeeded"]
    listed = await stub.ListMetrics(pb.ListMetricsRequest(name=name))
    assert [metric.value for metric in listed.metrics] == [1, 2]


async def test_a_run_that_ended_while_no_service_lived_is_taken_in(platform: TrainingPlatform, version: str) -> None:
    first = await platform.start()
    name = await platform.submit(platform.stub(), version, "echo begun; sleep 0.3")
    await until_logged(platform.stub(), name, b"begun")
    await first.kill()
    result = platform.root / "objects" / "named" / ref_of(await stored(first, name)).result_key
    async with asyncio.timeout(20):
        while not result.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
    await platform.start()
    assert (await wait_for(platform.stub(), name, pb.Run.SUCCEEDED)).attempt == 1


async def test_a_cancellation_outlives_the_service(platform: TrainingPlatform, version: str) -> None:
    first = await platform.start()
    name = await platform.submit(platform.stub(), version, "echo begun; sleep 60")
    await until_logged(platform.stub(), name, b"begun")
    first.task.cancel()
    await platform.stub().CancelRun(pb.CancelRunRequest(name=name))
    await first.kill()
    second = await platform.start()
    await wait_for(platform.stub(), name, pb.Run.CANCELLED)
    assert await platform.events(second, name) == [*ENDED, "training.run.cancelled"]


async def test_a_result_that_cannot_be_read_costs_an_attempt(platform: TrainingPlatform, version: str) -> None:
    await platform.start()
    stub = platform.stub()
    name = await platform.submit(stub, version, WAITS_AT_FIRST)
    await until_logged(stub, name, b"begun")
    platform.objects.put_named(f"{prefix(name, 1)}/result.json", b"{}")
    done = await wait_for(stub, name, pb.Run.SUCCEEDED)
    assert [attempt.state for attempt in done.attempts] == [pb.Attempt.LOST, pb.Attempt.SUCCEEDED]
    assert "cannot be read" in done.attempts[0].reason


async def test_two_reconcilers_at_once_do_everything_once(platform: TrainingPlatform, version: str) -> None:
    other = await platform.start()
    instance = await platform.start()
    stub = platform.stub()
    result = a_result(platform)
    names = [await submit_done(platform, instance, version, result, f"race-{n}") for n in range(6)]
    other.training.reconciler.wake(names[0])
    for name in names:
        done = await wait_for(stub, name, pb.Run.SUCCEEDED)
        assert done.attempt == 1
        assert await platform.events(instance, name) == [*ENDED, "training.run.succeeded"]
    await check_versions(platform, instance, names)


@pytest.mark.parametrize("carried_out", [False, True], ids=["before the write", "after the write"])
async def test_a_kill_at_any_write_loses_and_doubles_nothing(
    platform: TrainingPlatform, version: str, monkeypatch: pytest.MonkeyPatch, carried_out: bool
) -> None:
    instance = await platform.start()
    result = a_result(platform)
    faults = KilledWrites(monkeypatch, carried_out=carried_out)
    names: list[str] = []

    async def one(kill_at: int) -> bool:
        """One run, killed at that write and gone on with by a new instance; whether the kill came to pass."""
        nonlocal instance
        request = f"run-{kill_at}-{len(names)}"
        with faults.kill_at(kill_at):
            name = await attempt_submit(platform, instance, version, result, request, faults)
            await faults.killed_or(lambda: finished(instance, name))
        if faults.fired:
            await instance.kill()
            instance = await platform.start()
            name = await submit_done(platform, instance, version, result, request)
        names.append(name)
        await wait_for(platform.stub(), name, pb.Run.SUCCEEDED)
        assert await platform.events(instance, name) == [*ENDED, "training.run.succeeded"]
        return faults.fired

    assert not await one(0)
    writes = faults.count
    assert writes >= 7  # created, pinned, begun, metrics, accepted, version, model, succeeded
    for number in range(1, writes + 1):
        assert await one(number), f"write {number} was never reached"
    assert not await one(writes + 1)
    await check_versions(platform, instance, names)


async def test_a_late_reconciler_is_fenced_off(platform: TrainingPlatform, version: str) -> None:
    instance, name = await late_completion(platform, version, Fenced)
    assert (await platform.events(instance, name)).count("training.run.succeeded") == 1
    assert (await stored(instance, name)).accepted == 2


async def test_without_the_fence_a_late_reconciler_completes_a_second_time(
    platform: TrainingPlatform, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "fence", lambda run, attempt: None)
    instance, name = await late_completion(platform, version, None)
    assert (await platform.events(instance, name)).count("training.run.succeeded") == 2


async def late_completion(
    platform: TrainingPlatform, version: str, refused: type[Exception] | None
) -> tuple[Instance, str]:
    """A reconciler that saw attempt 1 succeed says so only after attempt 2 was made, and accepted, by another."""
    instance = await platform.start()
    result = a_result(platform)
    instance.task.cancel()
    name = await submit_done(platform, instance, version, result, "late", model="")
    repository, attempts = instance.training.repository, instance.training.reconciler._attempts
    moment = datetime.now(UTC)
    await repository.change_run(name, lambda run: model.pin(run, "sha256:m"))
    begun = await repository.change_run(name, lambda run: model.begin(run, moment))
    late = await attempts.look(begun.value)
    assert late is not None
    second = await repository.change_run(name, lambda run: model.lose(run, 1, "it seemed so", moment))
    put_result(platform, second.value, result)
    ending = await attempts.look(second.value)
    assert ending is not None
    await repository.change_run(name, ending)
    if refused is None:
        await repository.change_run(name, late)
    else:
        with pytest.raises(refused):
            await repository.change_run(name, late)
    return instance, name


def a_result(platform: TrainingPlatform) -> JobResult:
    """What a job with metrics and a model would leave behind."""
    objects = platform.objects
    files = [(name, objects.put_bytes(content)) for name, content in model_files().items()]
    line = {"batch_id": 1, "points": [{"name": "accuracy", "step": 0, "value": 0.9, "at": 1.0}]}
    return JobResult(
        JobState.SUCCEEDED,
        started=datetime.now(UTC),
        finished=datetime.now(UTC),
        exit_code=0,
        outputs=tuple(Output(f"model/{name}", ref.digest, ref.size) for name, ref in files),
        model=put_manifest(objects, [TreeFile(name, ref.digest, ref.size) for name, ref in files]).digest,
        log=objects.put_bytes(b"trained\n"),
        metrics=objects.put_bytes(json.dumps(line).encode()),
    )


def put_result(platform: TrainingPlatform, run: Run, result: JobResult) -> AttemptRef:
    """Let the run's current (or first) attempt have that result."""
    ref = AttemptRef(job_id(run.name), max(run.attempt, 1), prefix(run.name, max(run.attempt, 1)))
    platform.objects.put_named(ref.result_key, result.to_json())
    return ref


async def submit_done(
    platform: TrainingPlatform, instance: Instance, version: str, result: JobResult, request: str, model: str = "shapes"
) -> str:
    """Queue a run whose first attempt has ended already; gives its name."""
    run = Run(
        name=f"{PARENT}/runs/{request}",
        project="vision",
        author="mo",
        created=datetime.now(UTC),
        dataset_version=version,
        code=model_code(),
        model=model,
    )
    put_result(platform, run, result)
    return (await instance.training.commands.create_run(run, request)).id


async def attempt_submit(
    platform: TrainingPlatform, instance: Instance, version: str, result: JobResult, request: str, faults: KilledWrites
) -> str:
    """submit_done, which may be killed."""
    await faults.killed_or(lambda: submit_done(platform, instance, version, result, request))
    return f"{PARENT}/runs/{request}"


async def finished(instance: Instance, name: str) -> None:
    """Return once the run has ended."""
    while (await stored(instance, name)).state is not RunState.SUCCEEDED:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def stored(instance: Instance, name: str) -> Run:
    """The run's document."""
    return (await instance.training.repository.runs.get(name)).value


async def check_versions(platform: TrainingPlatform, instance: Instance, runs: list[str]) -> None:
    """One version a run, numbered without gaps, each told once and in order."""
    stub = platform.stub()
    parent = f"{PARENT}/models/shapes"
    listed = await stub.ListModelVersions(pb.ListModelVersionsRequest(parent=parent, page_size=1000))
    assert [version.number for version in listed.model_versions] == list(range(len(runs), 0, -1))
    assert sorted(version.run for version in listed.model_versions) == sorted(runs)
    assert await platform.events(instance, parent) == ["training.model.registered"] * len(runs)
    shown = {(await stored(instance, run)).model_version for run in runs}
    assert shown == {version.name for version in listed.model_versions}


async def wait_for_attempt(stub: Any, name: str, attempt: int) -> None:
    """Return once the run has come to that attempt."""
    async for run in stub.WatchRun(pb.WatchRunRequest(name=name)):
        if run.attempt == attempt:
            return


def model_code() -> model.Code:
    """The code of the runs that have a result from elsewhere."""
    return model.Code(algorithm="logistic-regression")
