"""A folder, an object store and an executor per test, and the tools to kill what they start at a chosen instant."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from penstock.jobs.attempt import Attempt
from penstock.jobs.executor import Observation, Phase
from penstock.jobs.local import LocalExecutor
from penstock.jobs.spec import AttemptRef, JobSpec
from penstock.objects import ObjectStore
from penstock.runner import processes

TIMEOUT = 30.0
Forked = Callable[[Callable[[], Any]], int]
LEAVE_OUTPUTS = "for n in 1 2 3; do echo $n > $PENSTOCK_OUTPUT_DIR/$n; done; echo '{\"loss\": 1}' > $PENSTOCK_METRICS"


@dataclass
class Bench:
    """An executor over a folder of the test's own."""

    home: Path
    executor: LocalExecutor

    @property
    def root(self) -> Path:
        return self.home / "jobs"

    @property
    def warm(self) -> Path:
        return self.root / "_warm"

    @property
    def objects(self) -> ObjectStore:
        return ObjectStore(self.home / "objects")

    def again(self, **options: Any) -> LocalExecutor:
        """What a restarted service would have: nothing but the folders."""
        return LocalExecutor(self.root, (self.home / "objects").as_uri(), **options)

    def spec(self, *command: str, job: str = "job", attempt: int = 1, **options: Any) -> JobSpec:
        prefix = f"projects/p/runs/{job}/attempts/{attempt}"
        spec = JobSpec(job, f"projects/p/runs/{job}", "p", attempt, prefix, command=command, expects_model=False)
        return replace(spec, **options)

    def shell(self, script: str, **options: Any) -> JobSpec:
        return self.spec("sh", "-c", script, **options)

    def attempt(self, spec: JobSpec) -> Attempt:
        return Attempt.of(self.root, spec.ref)

    async def until(self, ref: AttemptRef, *phases: Phase) -> Observation:
        deadline = time.monotonic() + TIMEOUT
        while (seen := await self.executor.observe(ref)).phase not in phases:
            assert time.monotonic() < deadline, f"still {seen.phase}; {self._why(ref)}"
            await asyncio.sleep(0.02)
        return seen

    async def result(self, spec: JobSpec) -> Any:
        await self.executor.start(spec)
        seen = await self.until(spec.ref, Phase.RESULT, Phase.LOST)
        assert seen.result is not None, f"LOST; {self._why(spec.ref)}"
        return seen.result

    async def ended(self, spec: JobSpec) -> None:
        """Have it run to its result, and its shim leave, which takes a moment longer."""
        await self.result(spec)
        deadline = time.monotonic() + TIMEOUT
        while self.attempt(spec).held():
            assert time.monotonic() < deadline, f"still held; {self._why(spec.ref)}"
            await asyncio.sleep(0.02)

    async def log(self, spec: JobSpec) -> str:
        return (await self.executor.read_log(spec.ref)).data.decode()

    async def log_with(self, spec: JobSpec, text: str) -> str:
        deadline = time.monotonic() + TIMEOUT
        while text not in (log := await self.log(spec)):
            assert time.monotonic() < deadline, f"no {text!r} in {log!r}; {self._why(spec.ref)}"
            await asyncio.sleep(0.02)
        return log

    def kill_shim(self, spec: JobSpec) -> None:
        """kill -9, and see it dead."""
        shim = self.attempt(spec).identity("start.json")
        assert shim is not None
        assert processes.send(shim, signal.SIGKILL)
        deadline = time.monotonic() + TIMEOUT
        while processes.alive(shim):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def family(self, spec: JobSpec) -> list[processes.Identity]:
        """The living processes of the attempt's command."""
        attempt = self.attempt(spec)
        return processes.family(attempt.identity("command.json"), attempt.marker)

    def _why(self, ref: AttemptRef) -> str:
        logs = Attempt.of(self.root, ref).folder.glob("*log")
        return "; ".join(f"{path.name}: {path.read_text(errors='replace')[-3000:]}" for path in logs)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Without warm starts, unless a test makes its own executor."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    bench = Bench(home, LocalExecutor(home / "jobs", (home / "objects").as_uri(), preload=""))
    try:
        yield bench
    finally:
        await bench.executor.shutdown()
        left = [r.parent for r in bench.root.glob("*/*/start.json") if processes.family(None, Attempt(r.parent).marker)]
        assert left == [], "a test left processes running"


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], Any]], int]]:
    """Run a function in a fork of the test's process, where it may patch what it likes; ended with the test."""
    children: list[int] = []

    def fork(work: Callable[[], Any]) -> int:
        child = os.fork()
        if child == 0:
            gc.freeze()  # what others left is not to be destroyed here: gRPC would wait for threads that a fork has not
            code = 1
            try:
                result = work()
                code = result if isinstance(result, int) else 0
            except BaseException:  # noqa: BLE001 - a forked child must not return into pytest
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
        return child

    yield fork
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def wait(child: int) -> int:
    """The exit code of a forked child; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def put_in_place_of(module: Any, name: str, replacement: Any) -> None:
    """Patch a mechanism; only ever in a forked child."""
    setattr(module, name, replacement)


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def prepared(bench: Bench, spec: JobSpec) -> Attempt:
    """An attempt's folder as `start` leaves it, without the shim."""
    attempt = bench.attempt(spec)
    attempt.put_job(spec, (bench.home / "objects").as_uri())
    return attempt
