"""Warm starts: real forks of a process that nobody owns, which may vanish at any time without harm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import algorithms
from penstock.jobs import warm
from penstock.jobs.executor import Phase
from penstock.jobs.local import LocalExecutor
from penstock.jobs.result import JobState
from penstock.jobs.spec import Algorithm

from .conftest import Bench, put_in_place_of, wait

Forked = Callable[[Callable[[], Any]], int]


def pretend(name: str) -> int:
    """Stands in for the built-ins in a warm process forked from the tests: what they do is no matter here."""
    environ = os.environ
    folder = Path(environ["PENSTOCK_CHECKPOINT_DIR"])
    with open(folder / "ran", "a") as ran:
        ran.write("ran\n")
    Path(environ["PENSTOCK_OUTPUT_DIR"], "drawn").write_text(repr(sys.modules["numpy"].random.random()))
    Path(environ["PENSTOCK_METRICS"]).write_text('{"loss": 1}\n')
    print(name, flush=True)  # last: then no file is open
    if name == "fails":
        raise RuntimeError("no convergence")
    if name == "sleeps":
        subprocess.Popen(["sleep", "60"])
        time.sleep(60)
    return 0


@pytest.fixture
async def owner(bench: Bench, forked: Forked) -> AsyncIterator[int]:
    """The pid of a warm process that knows the algorithm above; `bench.executor` uses it."""
    bench.executor = bench.again(preload="json")
    bench.warm.mkdir(parents=True)

    def serve() -> None:
        import numpy  # noqa: F401 - so that it is there to be shared

        put_in_place_of(algorithms, "run", pretend)
        warm.Warm(bench.warm, 60.0).serve("json")

    pid = forked(serve)
    await ready(bench)
    yield pid


async def ready(bench: Bench) -> None:
    deadline = time.monotonic() + 20
    while not (bench.warm / "socket").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def shims_parent(bench: Bench, spec: Any) -> int:
    """Who made the attempt's shim."""
    shim = bench.attempt(spec).identity("start.json")
    assert shim is not None
    return int(Path(f"/proc/{shim.pid}/stat").read_text().rpartition(")")[2].split()[1])


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


async def test_a_built_in_runs_in_a_fork_of_the_warm_process(bench: Bench, owner: int) -> None:
    spec = bench.spec(code=Algorithm("sleeps"))
    await bench.executor.start(spec)
    await bench.log_with(spec, "sleeps")
    assert shims_parent(bench, spec) == owner
    await bench.executor.cancel(spec.ref, grace=0)
    seen = await bench.until(spec.ref, Phase.RESULT)
    assert seen.result is not None
    assert seen.result.state is JobState.CANCELLED
    assert bench.family(spec) == []


async def test_its_result_is_that_of_any_job(bench: Bench, owner: int) -> None:
    result = await bench.result(bench.spec(code=Algorithm("good")))
    assert (result.state, result.exit_code, result.code) == (JobState.SUCCEEDED, 0, {"algorithm": "good"})
    assert [o.path for o in result.outputs] == ["drawn"]
    assert result.metrics is not None


async def test_an_exception_is_told_with_its_traceback(bench: Bench, owner: int) -> None:
    result = await bench.result(bench.spec(code=Algorithm("fails")))
    assert (result.state, result.exit_code) == (JobState.FAILED, 1)
    assert result.reason.endswith("RuntimeError: no convergence")


async def test_children_of_one_process_draw_different_numbers(bench: Bench, owner: int) -> None:
    specs = [bench.spec(code=Algorithm("good"), job=f"j{n}") for n in range(3)]
    results = [await bench.result(spec) for spec in specs]
    assert len({result.outputs[0].digest for result in results}) == 3


async def test_neither_shim_nor_command_has_descriptors_of_the_warm_process(bench: Bench, owner: int) -> None:
    spec = bench.spec(code=Algorithm("sleeps"))
    await bench.executor.start(spec)
    await bench.log_with(spec, "sleeps")
    command = bench.attempt(spec).identity("command.json")
    assert command is not None
    open_files = descriptors(command.pid)
    assert not any(str(bench.home) in name or name.startswith("socket") for name in open_files)
    shim = bench.attempt(spec).identity("start.json")
    assert shim is not None
    own = descriptors(shim.pid)
    assert sum(name.endswith("/lock") for name in own) == 1  # its own, and not that of the warm process
    assert not any(name.startswith("socket") for name in own)


async def test_a_killed_warm_shim_is_lost_and_frees_its_lock(bench: Bench, owner: int) -> None:
    spec = bench.spec(code=Algorithm("sleeps"))
    await bench.executor.start(spec)
    await bench.log_with(spec, "sleeps")
    bench.kill_shim(spec)
    assert (await bench.executor.observe(spec.ref)).phase is Phase.LOST
    await bench.executor.kill_rest(spec.ref)
    assert bench.family(spec) == []
    assert (await bench.result(bench.spec(code=Algorithm("good"), attempt=2))).state is JobState.SUCCEEDED


async def test_when_the_warm_process_is_killed_its_jobs_go_on_and_new_ones_start_cold(bench: Bench, owner: int) -> None:
    spec = bench.spec(code=Algorithm("sleeps"))
    await bench.executor.start(spec)
    await bench.log_with(spec, "sleeps")
    os.kill(owner, signal.SIGKILL)
    wait(owner)
    assert (await bench.executor.observe(spec.ref)).phase is Phase.HELD
    cold = await bench.result(bench.spec(code=Algorithm("no-such-algorithm"), job="cold"))
    assert (cold.state, cold.exit_code) == (JobState.FAILED, 2)  # the real ones know no such name
    await bench.executor.cancel(spec.ref, grace=0)
    await bench.until(spec.ref, Phase.RESULT)


async def test_a_killed_warm_process_is_replaced(bench: Bench, owner: int) -> None:
    os.kill(owner, signal.SIGKILL)
    wait(owner)
    assert not warm.ask(bench.warm, b"/nowhere")
    await bench.executor.prepare()
    deadline = time.monotonic() + 20
    while not warm.ask(bench.warm, b"/nowhere"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    spec = bench.spec(code=Algorithm("no-such-algorithm"))
    result = await bench.result(spec)
    assert result.exit_code == 2


async def test_two_warm_processes_do_not_share_a_folder(bench: Bench, owner: int, forked: Forked) -> None:
    second = forked(lambda: warm.Warm(bench.warm, 60.0).serve("json"))
    assert wait(second) == 0
    assert (await bench.result(bench.spec(code=Algorithm("good")))).state is JobState.SUCCEEDED


async def test_it_leaves_when_told(bench: Bench, owner: int) -> None:
    await bench.executor.shutdown()
    assert wait(owner) == 0
    assert not (bench.warm / "socket").exists()


async def test_it_leaves_when_its_home_is_gone(bench: Bench, owner: int) -> None:
    shutil.rmtree(bench.warm)
    assert await asyncio.to_thread(wait, owner) == 0


async def test_it_leaves_when_idle(bench: Bench, forked: Forked) -> None:
    bench.warm.mkdir(parents=True)
    assert await asyncio.to_thread(wait, forked(lambda: warm.Warm(bench.warm, 0.2).serve(""))) == 0


async def test_a_very_long_home_is_no_hindrance(tmp_path: Path, forked: Forked) -> None:
    folder = tmp_path / ("x" * 120) / "_warm"
    folder.mkdir(parents=True)
    child = forked(lambda: warm.Warm(folder, 60.0).serve(""))
    deadline = time.monotonic() + 20
    while not await asyncio.to_thread(warm.ask, folder, warm.STOP):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert wait(child) == 0


async def test_warm_and_cold_shims_of_one_attempt_race_and_one_leaves(bench: Bench, owner: int) -> None:
    executors: list[LocalExecutor] = [bench.executor, bench.again(preload="")]
    for n in range(3):
        spec = bench.spec(code=Algorithm("good"), job=f"j{n}")
        random.shuffle(executors)
        await asyncio.gather(*(executor.start(spec) for executor in executors))
        await bench.until(spec.ref, Phase.RESULT)
        ran = bench.attempt(spec).checkpoint / "ran"
        assert not ran.exists() or ran.read_text() == "ran\n"
