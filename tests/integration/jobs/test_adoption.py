"""Promise: a service that starts again finds, cancels or ends the jobs that run."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from penstock.jobs import shim
from penstock.jobs.executor import Phase
from penstock.jobs.result import JobState
from penstock.runner import job as runner_job
from penstock.runner import outputs, processes

from .conftest import LEAVE_OUTPUTS, Bench, Forked, kill_oneself, prepared, put_in_place_of, wait


async def test_starting_again_and_again_runs_it_once(bench: Bench) -> None:
    spec = bench.shell("echo ran >> $PENSTOCK_CHECKPOINT_DIR/ran; sleep 0.3")
    executors = [bench.executor, *(bench.again(preload="") for _ in range(3))]
    await asyncio.gather(*(executor.start(spec) for executor in executors for _ in range(2)))
    await bench.until(spec.ref, Phase.RESULT)
    await bench.executor.start(spec)
    assert (bench.attempt(spec).checkpoint / "ran").read_text() == "ran\n"


async def test_a_restarted_service_adopts_what_its_predecessor_started(bench: Bench, forked: Forked) -> None:
    spec = bench.shell("echo one; until [ -e $PENSTOCK_CHECKPOINT_DIR/go ]; do sleep 0.02; done; echo two")

    def service() -> int:
        asyncio.run(bench.again(preload="").start(spec))
        kill_oneself()
        return 0

    assert wait(forked(service)) == -signal.SIGKILL
    assert (await bench.until(spec.ref, Phase.HELD)).result is None
    await bench.log_with(spec, "one")
    (bench.attempt(spec).checkpoint / "go").touch()
    seen = await bench.until(spec.ref, Phase.RESULT)
    assert seen.result is not None
    assert seen.result.state is JobState.SUCCEEDED
    assert (await bench.log(spec)).startswith("one\ntwo\n")


async def test_a_restarted_service_cancels_what_its_predecessor_started(bench: Bench, forked: Forked) -> None:
    spec = bench.shell("echo up; sleep 60")
    assert wait(forked(lambda: asyncio.run(bench.again(preload="").start(spec)))) == 0
    await bench.log_with(spec, "up")
    await bench.executor.cancel(spec.ref, grace=5)
    seen = await bench.until(spec.ref, Phase.RESULT)
    assert seen.result is not None
    assert seen.result.state is JobState.CANCELLED


async def test_a_cancellation_before_the_result_wins(bench: Bench, forked: Forked) -> None:
    """The command has ended well and its outputs are stored: it is cancelled all the same."""
    spec = bench.shell(LEAVE_OUTPUTS)
    attempt = prepared(bench, spec)

    def cancelled_late() -> int:
        store = outputs.store_model

        def then_cancel(*arguments: Any) -> str:
            attempt.cancel(1)
            return store(*arguments)

        put_in_place_of(runner_job, "store_model", then_cancel)
        return shim.run(attempt.folder)

    assert wait(forked(cancelled_late)) == shim.DONE
    assert (await bench.result(spec)).state is JobState.CANCELLED


async def test_shutdown_ends_everything(bench: Bench) -> None:
    specs = [bench.shell("echo up; sleep 60", job=f"j{n}") for n in range(2)]
    for spec in specs:
        await bench.executor.start(spec)
        await bench.log_with(spec, "up")
    await bench.executor.shutdown()
    for spec in specs:
        assert (await bench.executor.observe(spec.ref)).phase is Phase.LOST
        assert bench.family(spec) == []


async def test_shutdown_ends_shims_that_have_just_been_started(bench: Bench) -> None:
    specs = [bench.shell("echo ran; sleep 60", job=f"j{n}") for n in range(3)]
    for spec in specs:
        await bench.executor.start(spec)
    await bench.executor.shutdown()
    assert processes.with_arguments("penstock.jobs.shim", str(bench.root)) == []
    for spec in specs:
        assert (await bench.executor.observe(spec.ref)).phase in (Phase.NEVER_STARTED, Phase.LOST)
        assert bench.family(spec) == []
