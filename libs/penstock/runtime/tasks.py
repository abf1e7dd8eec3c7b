"""What everything that reconciles needs: a task for each thing at most, and a wait that something may cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress


class KeyedTasks:
    """Work in the background, at most one task for each key."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tasks

    def start(self, key: Hashable, work: Callable[[], Awaitable[None]]) -> None:
        """Begin `work()`, unless what was begun under this key still runs. It must handle its own errors."""

        async def once() -> None:
            try:
                await work()
            finally:
                del self._tasks[key]  # in the same step as the end of the work: nothing is asked for in between

        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(once())

    def cancel(self, key: Hashable) -> None:
        """Cancel what runs under a key."""
        if key in self._tasks:
            self._tasks[key].cancel()

    async def close(self) -> None:
        """Cancel everything, and return when it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()  # of what was cancelled before its first step


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Return when `event` is set, or after `seconds`. Not `wait_for`, which may swallow a cancellation."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
