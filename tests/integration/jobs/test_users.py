"""What keeps jobs from each other: a user that no other job has, and a marker that no other job knows.

Somebody who can have ids of jobs made, and so their folders' names, must not be able to aim at those of another job.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import pytest

from penstock.jobs import shim
from penstock.jobs.attempt import Attempt
from penstock.jobs.executor import Phase
from penstock.jobs.result import Cause, JobState
from penstock.jobs.spec import JobSpec
from penstock.runner import isolation

from .conftest import Bench, put_in_place_of, wait

Forked = Callable[[Callable[[], Any]], int]
ROOT = os.geteuid() == 0  # without it there is one user, and no boundary
ATTACK = "id -u; head -c 1 /proc/{0}/environ >/dev/null && echo read; kill -9 {0} && echo killed; true"


def start(bench: Bench, forked: Forked, spec: JobSpec, patch: Callable[[], None]) -> int:
    """Run an attempt by a shim in a fork of this process, in which something may be patched."""
    attempt = bench.attempt(spec)
    attempt.put_job(spec, (bench.home / "objects").as_uri())

    def work() -> int:
        patch()
        return shim.run(attempt.folder)

    return forked(work)


def aimed() -> None:
    """As if the choice could be foreseen: all jobs would have the same user."""
    put_in_place_of(isolation, "_anywhere", lambda _: 0)


def careless() -> None:
    aimed()
    put_in_place_of(isolation, "_lock", lambda *_: True)
    put_in_place_of(isolation, "living_users", set)


def attacked(bench: Bench, spec: JobSpec) -> int:
    command = bench.attempt(spec).identity("command.json")
    assert command is not None
    return command.pid


async def attack(bench: Bench, forked: Forked, patch: Callable[[], None]) -> tuple[str, Any]:
    """What a job prints that reaches for another, and how that one ends."""
    wait_for_go = 'while [ ! -e "$PENSTOCK_CHECKPOINT_DIR/go" ]; do sleep 0.02; done'
    victim = bench.shell(f"echo up; {wait_for_go}", job="victim")
    start(bench, forked, victim, patch)
    await bench.log_with(victim, "up")
    attacker = bench.shell(ATTACK.format(attacked(bench, victim)), job="attacker")
    assert wait(start(bench, forked, attacker, patch)) == shim.DONE
    (bench.attempt(victim).checkpoint / "go").touch()
    ended = (await bench.until(victim.ref, Phase.RESULT)).result
    assert ended is not None
    return await bench.log(attacker), ended


async def test_a_job_neither_reads_nor_ends_another_even_if_it_could_foresee_its_user(
    bench: Bench, forked: Forked
) -> None:
    printed, ended = await attack(bench, forked, aimed)
    if ROOT:
        assert printed.splitlines()[0] == str(isolation.USERS[1])
        assert "read" not in printed.split() and "killed" not in printed.split()
        assert ended.state is JobState.SUCCEEDED
    else:
        assert ended.environment["isolation"] == isolation.NO_BOUNDARY


async def test_with_the_same_user_it_reads_and_ends_it(bench: Bench, forked: Forked) -> None:
    """Negative control of the test above."""
    printed, ended = await attack(bench, forked, careless)
    assert {"read", "killed"} <= set(printed.split())
    assert (ended.cause, ended.exit_code) == (Cause.SIGNAL, 137)


@pytest.mark.parametrize(("patch", "same"), [(aimed, False), (careless, True)])
async def test_no_user_is_given_again_while_something_of_a_killed_job_is_left(
    bench: Bench, forked: Forked, patch: Callable[[], None], same: bool
) -> None:
    """The lock is gone with the shim, what the command started is not. The second round is the negative control."""
    first = bench.shell("setsid sleep 60 & id -u; echo up; sleep 60")
    child = start(bench, forked, first, patch)
    before = (await bench.log_with(first, "up")).splitlines()[0]
    bench.kill_shim(first)
    wait(child)
    second = bench.shell("id -u", attempt=2)
    wait(start(bench, forked, second, patch))
    after = (await bench.log(second)).splitlines()[0]
    assert await bench.executor.kill_rest(first.ref) >= 1
    assert (before == after) == (same or not ROOT)


def foreseen(self: Attempt) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(self.folder))).hexdigest()[:24]


@pytest.mark.parametrize("known", [False, True])
async def test_a_job_cannot_have_its_processes_taken_for_another_s(bench: Bench, forked: Forked, known: bool) -> None:
    """Whoever could would have them counted, and be able to stretch the other's end for ever. The negative control is
    a marker that follows from the name of the folder, which a job can find out."""

    def patch() -> None:
        if known:
            put_in_place_of(Attempt, "mark", foreseen)

    victim = bench.shell("echo up; sleep 1", job="victim")
    guess = foreseen(bench.attempt(victim))
    attacker = bench.shell(f"PENSTOCK_JOB={guess} sleep 60 & echo up; wait $!; echo ended", job="attacker")
    start(bench, forked, attacker, patch)
    await bench.log_with(attacker, "up")
    start(bench, forked, victim, patch)
    await bench.until(victim.ref, Phase.RESULT)
    note = "1 processes that the command had left running were ended"
    assert (note in await bench.log(victim)) == known
    if known:
        await bench.log_with(attacker, "ended")
    else:
        assert "ended" not in await bench.log(attacker)
    await bench.executor.cancel(attacker.ref, 0)
    await bench.until(attacker.ref, Phase.RESULT)
