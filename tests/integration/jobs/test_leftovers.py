"""What is left of ended jobs is removed, and nothing else: a held attempt, another service's job, one just begun."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock.errors import FailedPrecondition
from penstock.jobs.executor import Phase
from penstock.jobs.leftovers import Leftovers
from penstock.runner import processes

from .conftest import Bench


async def none_wanted(jobs: Sequence[str]) -> set[str]:
    """All of them have ended."""
    return set()


async def test_folders_of_ended_jobs_are_removed_and_those_of_wanted_ones_stay(bench: Bench) -> None:
    for job in ("run.p.done", "run.p.more", "evaluation.p.done"):
        await bench.ended(bench.shell("true", job=job))
    assert await bench.executor.jobs("run.") == ["run.p.done", "run.p.more"]

    async def more(jobs: Sequence[str]) -> set[str]:
        return {"run.p.more"}

    await Leftovers(bench.again(), "run.", more).sweep()
    assert sorted(folder.name for folder in bench.root.iterdir() if folder.is_dir()) == [
        "evaluation.p.done",
        "run.p.more",
    ]


async def test_an_ended_job_that_is_held_stays_until_it_is_not(bench: Bench) -> None:
    first = bench.shell("true", job="run.p.r")
    await bench.ended(first)
    second = bench.shell("echo begun; sleep 60", job="run.p.r", attempt=2)
    await bench.executor.start(second)
    await bench.log_with(second, "begun")
    leftovers = Leftovers(bench.again(), "run.", none_wanted)
    await leftovers.sweep()
    assert (await bench.executor.observe(second.ref)).phase is Phase.HELD
    assert bench.attempt(first).folder.exists()
    with pytest.raises(FailedPrecondition):
        await bench.executor.cleanup(second.ref, last=True)
    bench.kill_shim(second)
    (command, *_) = bench.family(second)
    await leftovers.sweep()
    assert not processes.alive(command)
    assert not await bench.executor.jobs("")


async def test_a_job_that_begins_during_a_sweep_is_left_alone(bench: Bench) -> None:
    await bench.ended(bench.shell("true", job="run.p.old"))
    new = bench.shell("true", job="run.p.new")

    async def meanwhile(jobs: Sequence[str]) -> set[str]:
        await bench.ended(new)
        return set()

    await Leftovers(bench.executor, "run.", meanwhile).sweep()
    assert await bench.executor.jobs("run.") == ["run.p.new"]


async def test_cancelling_what_has_ended_does_not_make_its_folder_again(bench: Bench) -> None:
    spec = bench.shell("true", job="run.p.r")
    await bench.ended(spec)
    await bench.executor.cleanup(spec.ref, last=True)
    await bench.executor.cancel(spec.ref, 1.0)
    assert not await bench.executor.jobs("run.")
    assert (await bench.executor.observe(spec.ref)).phase is Phase.RESULT
