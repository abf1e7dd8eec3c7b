"""Ending an attempt from outside reaches what hid from it, and nothing of another home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from penstock.jobs.attempt import Attempt
from penstock.jobs.executor import Phase
from penstock.jobs.local import LocalExecutor
from penstock.runner import processes

from .conftest import Bench

# Its grandchild has a session of its own, no environment, and no living parent but the shim.
HIDES = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        print("hidden", os.getpid(), flush=True)
        os.execve("/bin/sleep", ["sleep", "31558"], {})
    os._exit(0)
os.wait()
time.sleep(300)
"""


async def hidden(bench: Bench, attempt: int = 1) -> tuple[processes.Identity, Attempt]:
    """The hidden process of a running attempt."""
    spec = bench.spec("python", "-c", HIDES, attempt=attempt)
    await bench.executor.start(spec)
    log = await bench.log_with(spec, "hidden")
    while "\n" not in log.partition("hidden ")[2]:
        log = await bench.log(spec)
    return processes.identity_of(int(log.partition("hidden ")[2].split()[0])), bench.attempt(spec)


@pytest.mark.parametrize("how", ["kill_rest", "shutdown"])
async def test_what_hid_is_ended_with_its_attempt(bench: Bench, how: str) -> None:
    found, attempt = await hidden(bench)
    shim = attempt.identity("start.json")
    assert shim is not None
    if how == "kill_rest":
        await bench.executor.kill_rest(bench.spec("python", "-c", HIDES).ref)
    else:
        await bench.executor.shutdown()
    assert not processes.alive(found)
    assert not processes.alive(shim)
    assert not attempt.held()


async def test_a_copy_of_the_folder_ends_nothing_of_the_original(bench: Bench, tmp_path: Path) -> None:
    found, attempt = await hidden(bench)
    copy = tmp_path / "copy"
    shutil.copytree(bench.root, copy / "jobs")
    stranger = LocalExecutor(copy / "jobs", (copy / "objects").as_uri(), preload="")
    spec = bench.spec("python", "-c", HIDES)
    assert (await stranger.observe(spec.ref)).phase is Phase.LOST
    assert await stranger.kill_rest(spec.ref) == 0
    await stranger.shutdown()
    assert processes.alive(found)
    assert attempt.held()
