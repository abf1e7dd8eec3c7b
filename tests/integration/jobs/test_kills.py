"""Promise 1 and 2 for jobs: kill -9 at any instant leaves a complete result, or an attempt known as lost or unstarted.

Real shims are killed from outside. Where the instant matters, the shim runs in a fork of this process that kills itself
there. The last tests patch a mechanism out and see its invariant break.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock.jobs import shim
from penstock.jobs.attempt import Attempt
from penstock.jobs.executor import Phase
from penstock.jobs.result import JobResult, JobState
from penstock.jobs.spec import JobSpec
from penstock.objects import durable
from penstock.runner import isolation, outputs, processes
from penstock.runner import job as runner_job

from .conftest import LEAVE_OUTPUTS, Bench, Forked, kill_oneself, prepared, put_in_place_of, wait


async def test_killed_before_its_start_record_it_starts_again(bench: Bench, forked: Forked) -> None:
    spec = bench.shell("echo ran")
    attempt = prepared(bench, spec)

    def dying() -> int:
        put_in_place_of(Attempt, "record_start", lambda self: kill_oneself())
        return shim.run(attempt.folder)

    assert wait(forked(dying)) == -signal.SIGKILL
    assert (await bench.executor.observe(spec.ref)).phase is Phase.NEVER_STARTED
    assert (await bench.result(spec)).state is JobState.SUCCEEDED


async def test_killed_just_after_its_start_record_it_is_lost(bench: Bench, forked: Forked) -> None:
    spec = bench.shell("echo ran")
    attempt = prepared(bench, spec)

    def dying() -> int:
        put_in_place_of(shim, "become_subreaper", kill_oneself)
        return shim.run(attempt.folder)

    assert wait(forked(dying)) == -signal.SIGKILL
    assert (await bench.executor.observe(spec.ref)).phase is Phase.LOST
    await bench.executor.start(spec)  # never the same attempt twice
    assert (await bench.executor.observe(spec.ref)).phase is Phase.LOST
    assert await bench.log(spec) == ""


@pytest.mark.parametrize("instant", ["before", "after"])
async def test_killed_while_it_launches_no_command_runs_on(bench: Bench, forked: Forked, instant: str) -> None:
    """The child that will be the command is alone: it must not begin."""
    spec = bench.shell("echo ran >> $PENSTOCK_CHECKPOINT_DIR/ran; sleep 60")
    attempt = prepared(bench, spec)
    record = Attempt.record_command

    def dying() -> int:
        def kill_parent(self: Attempt, identity: processes.Identity) -> None:
            if instant == "after":
                record(self, identity)
            parent = os.getppid()
            os.kill(parent, signal.SIGKILL)
            while os.getppid() == parent:  # a signal takes its time
                time.sleep(0.001)
            if instant == "before":
                record(self, identity)

        put_in_place_of(Attempt, "record_command", kill_parent)
        return shim.run(attempt.folder)

    assert wait(forked(dying)) == -signal.SIGKILL
    await bench.until(spec.ref, Phase.LOST)
    await bench.executor.kill_rest(spec.ref)
    assert bench.family(spec) == []
    assert not (attempt.checkpoint / "ran").exists()


async def test_killed_while_running_its_command_is_ended_and_the_next_attempt_runs(bench: Bench) -> None:
    spec = bench.shell("trap '' TERM; (sleep 60; echo still here) & setsid sleep 60 & echo up; sleep 60")
    await bench.executor.start(spec)
    await bench.log_with(spec, "up")
    bench.kill_shim(spec)
    assert (await bench.executor.observe(spec.ref)).phase is Phase.LOST
    assert bench.family(spec) != []
    assert await bench.executor.kill_rest(spec.ref) >= 2
    assert bench.family(spec) == []
    assert (await bench.executor.observe(spec.ref)).phase is Phase.LOST
    again = bench.shell("echo done", attempt=2)
    assert (await bench.result(again)).state is JobState.SUCCEEDED
    assert (await bench.log(spec)).startswith("up")  # what the lost attempt printed is still there


async def test_killed_after_its_outputs_and_before_its_result_it_is_lost(bench: Bench, forked: Forked) -> None:
    spec = bench.shell(LEAVE_OUTPUTS)
    attempt = prepared(bench, spec)

    def dying() -> int:
        put_in_place_of(runner_job, "write_result", lambda *_: kill_oneself())
        return shim.run(attempt.folder)

    assert wait(forked(dying)) == -signal.SIGKILL
    assert (await bench.executor.observe(spec.ref)).phase is Phase.LOST
    assert bench.objects.get_named(spec.ref.result_key) is None


async def test_killed_after_its_result_it_has_succeeded(bench: Bench, forked: Forked) -> None:
    spec = bench.shell(LEAVE_OUTPUTS)
    attempt = prepared(bench, spec)

    def dying() -> int:
        put_in_place_of(shutil, "rmtree", lambda *_, **__: kill_oneself())
        return shim.run(attempt.folder)

    assert wait(forked(dying)) == -signal.SIGKILL
    assert (await bench.result(spec)).state is JobState.SUCCEEDED


async def test_a_fault_at_every_object_write_leaves_a_whole_result_or_a_lost_attempt(
    bench: Bench, forked: Forked
) -> None:
    writes = await faulty(bench, forked, 0, "none")
    assert writes >= 6  # three outputs, metrics, log, result
    phases: dict[str, list[Phase]] = {}
    for fault in ("kill before", "kill after", "error", "torn"):
        phases[fault] = []
        for k in range(1, writes + 1):
            await faulty(bench, forked, k, fault)
            spec = faulted(bench, k, fault)
            seen = await bench.executor.observe(spec.ref)
            phases[fault].append(seen.phase)
            if seen.result is not None and seen.result.state is JobState.SUCCEEDED:
                assert [bench.objects.get_bytes(o.digest) for o in seen.result.outputs] == outputs_of(spec)
    lost = [Phase.LOST] * (writes - 1)
    assert phases["kill before"] == [*lost, Phase.LOST]
    assert phases["kill after"] == [*lost, Phase.RESULT]
    assert phases["torn"] == [*lost, Phase.LOST]
    assert phases["error"] == [Phase.RESULT] * writes  # failed, and says why; the result itself is written again


def faulted(bench: Bench, k: int, fault: str) -> JobSpec:
    # No two of these jobs store the same bytes: what is there already is not written again.
    loss = f'{{"loss": {k}, "{fault}": 0}}'
    script = (
        f"for n in 1 2 3; do echo {fault} {k} $n > $PENSTOCK_OUTPUT_DIR/$n; done; echo '{loss}' > $PENSTOCK_METRICS"
    )
    script += f"; echo {fault} {k}"
    return bench.shell(script, job=f"{fault.replace(' ', '-')}-{k}")


def outputs_of(spec: JobSpec) -> list[bytes]:
    words = spec.job.replace("kill-", "kill ").rsplit("-", 1)
    return [f"{words[0]} {words[1]} {n}\n".encode() for n in (1, 2, 3)]


async def faulty(bench: Bench, forked: Forked, k: int, fault: str) -> int:
    """Run a job whose k-th object write suffers a fault; returns how many writes there were."""
    attempt = prepared(bench, faulted(bench, k, fault))
    count = 0

    def injected(operation: Callable[[], Any]) -> Any:
        nonlocal count
        count += 1
        if count != k:
            return operation()
        if fault == "error":
            raise OSError(5, "Input/output error")
        if fault == "torn":
            put_in_place_of(os, "replace", lambda *_: kill_oneself())
        if fault == "kill before":
            kill_oneself()
        done = operation()
        kill_oneself()
        return done

    def shim_with_fault() -> int:
        put_in_place_of(durable, "write", injected)
        shim.run(attempt.folder)
        return count

    code = wait(await asyncio.to_thread(forked, shim_with_fault))
    assert code >= 0 if fault in ("none", "error") else code == -signal.SIGKILL
    return code


async def test_of_two_shims_one_leaves(bench: Bench, forked: Forked) -> None:
    spec = bench.shell("echo ran >> $PENSTOCK_CHECKPOINT_DIR/ran; sleep 0.5")
    attempt = prepared(bench, spec)
    codes = sorted(wait(child) for child in [forked(lambda: shim.run(attempt.folder)) for _ in range(4)])
    assert codes == [shim.DONE, shim.LEFT, shim.LEFT, shim.LEFT]
    assert (attempt.checkpoint / "ran").read_text() == "ran\n"
    assert wait(forked(lambda: shim.run(attempt.folder))) == shim.LEFT  # also long after


# Negative controls: the mechanism is patched out in a fork of this process, and the invariant breaks.


async def test_without_lock_and_record_an_attempt_runs_twice(bench: Bench, forked: Forked) -> None:
    spec = bench.shell("echo ran >> $PENSTOCK_CHECKPOINT_DIR/ran; sleep 0.5")
    attempt = prepared(bench, spec)

    def unfenced() -> int:
        put_in_place_of(isolation, "works", lambda: False)  # one user for both: what the other has could not be shared
        put_in_place_of(shim, "claim", lambda *_: os.open(os.devnull, os.O_RDONLY))
        return shim.run(attempt.folder)

    for child in [forked(unfenced), forked(unfenced)]:
        wait(child)
    assert (attempt.checkpoint / "ran").read_text() == "ran\nran\n"


async def test_a_command_that_inherits_the_lock_keeps_it_for_a_dead_shim(bench: Bench, forked: Forked) -> None:
    spec = bench.shell("sleep 60 & echo up; sleep 60")
    attempt = prepared(bench, spec)

    def careless() -> int:
        put_in_place_of(os, "closerange", lambda *_: None)
        claim = shim.claim

        def inheritable(*arguments: Any) -> int | None:
            lock = claim(*arguments)
            if lock is not None:
                os.set_inheritable(lock, True)
            return lock

        put_in_place_of(shim, "claim", inheritable)
        return shim.run(attempt.folder)

    child = forked(careless)
    await bench.log_with(spec, "up")
    os.kill(child, signal.SIGKILL)
    assert wait(child) == -signal.SIGKILL
    assert (await bench.executor.observe(spec.ref)).phase is Phase.HELD  # wrongly: its shim is dead
    await bench.executor.kill_rest(spec.ref)
    assert (await bench.executor.observe(spec.ref)).phase is Phase.LOST


async def test_a_result_written_first_is_a_partial_one(bench: Bench, forked: Forked) -> None:
    spec = bench.shell(LEAVE_OUTPUTS)
    attempt = prepared(bench, spec)

    def hasty() -> int:
        store = outputs.store_outputs

        def result_first(objects: Any, folder: Any) -> Any:
            listed = store(type(objects)(bench.home / "elsewhere"), folder)
            result = JobResult(JobState.SUCCEEDED, datetime.now(UTC), datetime.now(UTC), outputs=listed)
            runner_job.write_result(objects, spec, result)
            kill_oneself()

        put_in_place_of(runner_job, "store_outputs", result_first)
        return shim.run(attempt.folder)

    assert wait(forked(hasty)) == -signal.SIGKILL
    seen = await bench.executor.observe(spec.ref)
    assert seen.result is not None
    assert not any(bench.objects.exists(o.digest) for o in seen.result.outputs)
