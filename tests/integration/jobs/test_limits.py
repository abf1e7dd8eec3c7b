"""Limits, cancellation, and the end of everything that a command started."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from penstock.jobs.executor import Phase
from penstock.jobs.result import Cause, JobState
from penstock.jobs.spec import Resources

from .conftest import Bench

# Ignores SIGTERM, forks, and hides a grandchild in a session of its own with an empty environment.
STUBBORN = """
import os, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            os.execve("/bin/sleep", ["sleep", "31557"], {})
        time.sleep(300)
print("up", flush=True)
time.sleep(300)
"""


async def test_a_timeout_ends_the_command_after_its_grace(bench: Bench) -> None:
    spec = bench.shell("trap 'echo polite; exit 0' TERM; echo up; sleep 60 & wait", resources=Resources(timeout=2))
    result = await bench.result(spec)
    assert (result.state, result.cause, result.exit_code) == (JobState.FAILED, Cause.TIMEOUT, 0)
    assert "longer than its 2 s" in result.reason
    assert "polite" in await bench.log(spec)


async def test_stubborn_forking_code_is_ended_wholly(bench: Bench) -> None:
    spec = bench.spec("python", "-c", STUBBORN, resources=Resources(timeout=3), grace=0.3)
    await bench.executor.start(spec)
    await bench.log_with(spec, "up")
    assert len(bench.family(spec)) >= 3
    seen = await bench.until(spec.ref, Phase.RESULT)
    assert seen.result is not None
    assert (seen.result.cause, seen.result.exit_code) == (Cause.TIMEOUT, 137)
    assert sleepers(bench) == []


async def test_what_a_command_leaves_running_is_ended(bench: Bench) -> None:
    spec = bench.spec("python", "-c", STUBBORN.rsplit("time.sleep", 1)[0])
    result = await bench.result(spec)
    assert result.state is JobState.SUCCEEDED
    assert "processes that the command had left running were ended" in await bench.log(spec)
    assert sleepers(bench) == []


async def test_too_much_memory_is_told_as_such(bench: Bench) -> None:
    code = "import time; x = bytearray(300 << 20); print('got it', flush=True); time.sleep(60)"
    result = await bench.result(bench.spec("python", "-c", code, resources=Resources(memory=150 << 20)))
    assert (result.state, result.cause) == (JobState.FAILED, Cause.MEMORY)
    assert "more than its 150 MiB" in result.reason


async def test_memory_of_all_processes_counts(bench: Bench) -> None:
    code = (
        "import os, time\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        x = bytearray(60 << 20); time.sleep(60)\n"
        "time.sleep(60)"
    )
    result = await bench.result(bench.spec("python", "-c", code, resources=Resources(memory=150 << 20)))
    assert result.cause is Cause.MEMORY


async def test_one_huge_allocation_is_told_as_memory_too(bench: Bench) -> None:
    code = "x = bytearray(8 << 30)"
    result = await bench.result(bench.spec("python", "-c", code, resources=Resources(memory=64 << 20)))
    assert (result.cause, result.exit_code) == (Cause.MEMORY, 1)
    assert "MemoryError" in result.reason


async def test_a_signal_is_told_by_its_number(bench: Bench) -> None:
    result = await bench.result(bench.shell("kill -SEGV $$"))
    assert (result.cause, result.exit_code) == (Cause.SIGNAL, 139)
    assert "signal 11" in result.reason


async def test_cancelling_gives_the_command_its_grace(bench: Bench) -> None:
    spec = bench.shell("trap 'echo polite > $PENSTOCK_OUTPUT_DIR/end; exit 0' TERM; echo up; sleep 60 & wait")
    await bench.executor.start(spec)
    await bench.log_with(spec, "up")
    await bench.executor.cancel(spec.ref, grace=10)
    result = (await bench.until(spec.ref, Phase.RESULT)).result
    assert result is not None
    assert (result.state, result.cause) == (JobState.CANCELLED, Cause.CANCELLED)
    assert [o.path for o in result.outputs] == ["end"]  # what it had written is kept


async def test_cancelling_kills_who_ignores_it(bench: Bench) -> None:
    spec = bench.spec("python", "-c", STUBBORN)
    await bench.executor.start(spec)
    await bench.log_with(spec, "up")
    asked = time.monotonic()
    await bench.executor.cancel(spec.ref, grace=0.5)
    result = (await bench.until(spec.ref, Phase.RESULT)).result
    assert result is not None
    assert (result.state, result.exit_code) == (JobState.CANCELLED, 137)
    assert time.monotonic() - asked >= 0.5
    assert sleepers(bench) == []


async def test_cancelled_before_its_start_never_runs(bench: Bench) -> None:
    spec = bench.shell("echo ran")
    await bench.executor.cancel(spec.ref, grace=1)
    assert (await bench.executor.observe(spec.ref)).phase is Phase.NEVER_STARTED
    result = await bench.result(spec)
    assert (result.state, result.exit_code) == (JobState.CANCELLED, None)
    assert "ran" not in await bench.log(spec)


async def test_the_log_is_read_while_it_grows_and_after(bench: Bench) -> None:
    spec = bench.shell("echo one; until [ -e $PENSTOCK_CHECKPOINT_DIR/go ]; do sleep 0.02; done; echo two >&2")
    await bench.executor.start(spec)
    await bench.log_with(spec, "one\n")
    first = await bench.executor.read_log(spec.ref)
    assert first.data == b"one\n"
    assert (await bench.executor.read_log(spec.ref, first.offset)).data == b""
    (bench.attempt(spec).checkpoint / "go").touch()
    await bench.until(spec.ref, Phase.RESULT)
    assert (await bench.executor.read_log(spec.ref, first.offset)).data.startswith(b"two\n")
    assert (await bench.executor.read_log(spec.ref, 1, limit=2)).data == b"ne"


async def test_a_log_without_end_is_cut_with_a_note(bench: Bench) -> None:
    spec = bench.shell("seq 1 20000; echo last words; exit 1", log_limit=5000)
    result = await bench.result(spec)
    log = await bench.log(spec)
    assert len(log) < 5400
    assert "[penstock] the log has reached its limit of 5000 bytes" in log
    assert result.log_tail[-1] == "last words"


async def test_two_jobs_run_side_by_side(bench: Bench) -> None:
    specs = [bench.shell(f"echo {n}; sleep 0.3; echo {n}", job=f"j{n}") for n in range(4)]
    results = await asyncio.gather(*(bench.result(spec) for spec in specs))
    assert [r.state for r in results] == [JobState.SUCCEEDED] * 4
    for n, spec in enumerate(specs):
        assert (await bench.log(spec)).startswith(f"{n}\n{n}\n")


def sleepers(bench: Bench) -> list[str]:
    """The `sleep 31557` of this test that are left: found by user, since they hide their marker."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes() == b"sleep\x0031557\x00":
                found.append(process.name)
        except OSError:
            continue
    return found
