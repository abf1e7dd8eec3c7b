"""A task a key, gone with its owner; waits that an event cuts short."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from penstock.runtime.tasks import KeyedTasks, set_within


async def test_a_key_has_one_task_and_may_have_another_the_moment_that_one_ends() -> None:
    tasks, begun, go, ended = KeyedTasks(), [], asyncio.Event(), asyncio.Event()

    async def work(name: str) -> None:
        begun.append(name)
        await go.wait()
        ended.set()

    tasks.start("a", partial(work, "first"))
    tasks.start("a", partial(work, "too early"))
    tasks.start("b", partial(work, "other"))
    await asyncio.sleep(0)
    assert (begun, len(tasks), "a" in tasks) == (["first", "other"], 2, True)
    go.set()
    await ended.wait()  # woken in the step in which the work ended
    tasks.start("a", partial(work, "second"))
    await asyncio.sleep(0)
    assert begun == ["first", "other", "second"]
    await tasks.close()


async def test_nothing_is_left_when_it_is_closed() -> None:
    tasks, cancelled = KeyedTasks(), []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(name)

    tasks.start("a", partial(work, "a"))
    tasks.start("b", partial(work, "b"))
    await asyncio.sleep(0)
    tasks.cancel("a")
    tasks.cancel("none")
    tasks.start("c", partial(work, "c"))  # is cancelled before its first step
    await tasks.close()
    assert (cancelled, len(tasks)) == (["a", "b"], 0)


async def test_a_wait_ends_with_the_event_or_the_time_and_a_cancellation_gets_through() -> None:
    event = asyncio.Event()
    began = time.monotonic()
    await set_within(event, 0.05)
    assert time.monotonic() - began > 0.04
    asyncio.get_running_loop().call_later(0.01, event.set)
    await set_within(event, 60)
    waiting = asyncio.create_task(set_within(asyncio.Event(), 60))
    await asyncio.sleep(0)
    waiting.cancel()
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
