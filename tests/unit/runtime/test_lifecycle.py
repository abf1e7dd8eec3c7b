"""Background work outlives its failures and ends when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import structlog

from penstock.errors import NotFound, Unavailable
from penstock.runtime.lifecycle import Backoff, Tasks, stop_signal, until_it_works

QUICK = Backoff(first=0.001, most=0.004)


async def test_work_that_fails_is_started_again_and_its_error_is_logged() -> None:
    runs = 0
    steady = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise RuntimeError("broken")
        steady.set()
        await asyncio.Event().wait()

    tasks = Tasks(QUICK)
    with structlog.testing.capture_logs() as logs:
        tasks.start("reconciler", work)
        await asyncio.wait_for(steady.wait(), 5)
        await tasks.stop()
    assert [entry["task"] for entry in logs if entry["event"] == "task failed"] == ["reconciler"] * 2


async def test_stop_cancels_work_and_waits_for_its_end() -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended = True

    tasks = Tasks(QUICK)
    tasks.start("x", work)
    await asyncio.sleep(0)
    await tasks.stop()
    assert ended


async def test_work_that_does_not_end_is_named_and_left() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    tasks = Tasks(QUICK)
    tasks.start("stubborn", stubborn)
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logs:
        await tasks.stop(timeout=0.05)
    assert [(entry["event"], entry["task"]) for entry in logs] == [("task did not end", "stubborn")]
    release.set()
    await asyncio.sleep(0.01)


async def test_work_that_cancels_itself_goes_on() -> None:
    runs = 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise asyncio.CancelledError
        again.set()

    tasks = Tasks(QUICK)
    tasks.start("x", work)
    await asyncio.wait_for(again.wait(), 5)
    await tasks.stop()


def test_waits_grow_to_a_limit_and_are_forgotten_after_a_healthy_time() -> None:
    backoff = Backoff(first=1, most=5, healthy=30)
    delays = [0.0]
    for _ in range(5):
        delays.append(backoff.after(delays[-1], uptime=1))
    assert delays == [0, 1, 2, 4, 5, 5]
    assert backoff.after(5, uptime=31) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    async with stop_signal() as stop:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)


async def test_a_second_signal_stops_at_once() -> None:
    async def run() -> None:
        async with stop_signal() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            await stop.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(30)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.create_task(run()), 5)


async def test_what_is_not_there_yet_is_waited_for_and_what_is_wrong_is_not() -> None:
    attempts = 0

    async def work() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise Unavailable("Not yet.")

    await until_it_works("database", work, Unavailable, QUICK)
    assert attempts == 3

    async def wrong() -> None:
        raise NotFound("There is none.")

    with pytest.raises(NotFound):
        await until_it_works("database", wrong, Unavailable, QUICK)
