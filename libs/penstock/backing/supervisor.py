"""Keeps servers up: one that dies is started again on the same port and data, less and less eagerly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from penstock.backing.process import ManagedProcess

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0  # between two looks at whether a server is sick
STOP_SECONDS = 10.0  # for a sick one to stop by itself
Start = Callable[[], Awaitable[ManagedProcess | None]]
Sick = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Backoff:
    """Delays before restarts, in seconds: doubled from `first` to `most`, forgotten after `healthy` of uptime."""

    first: float = 0.1
    most: float = 10.0
    healthy: float = 30.0

    def after(self, delay: float, uptime: float) -> float:
        """The delay that follows `delay`, for a server that was up for `uptime`."""
        return self.first if uptime >= self.healthy or delay == 0 else min(self.most, delay * 2)


class Supervisor:
    """Watches servers by their `start`, which must adopt the running one or start it, and return when it is ready."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.restarts: dict[str, int] = {}

    def watch(self, name: str, start: Start, sick: Sick | None = None) -> None:
        """Keep `name` up from now on. Needs a running event loop.

        `sick` is asked now and then whether only a restart will help; it must not raise.
        """
        self.forget(name)
        self.restarts.setdefault(name, 0)
        self._tasks[name] = asyncio.create_task(self._keep_up(name, start, sick), name=f"supervise-{name}")

    def forget(self, name: str) -> None:
        """Stop watching `name`; it goes on running. Call this before stopping it, or it comes back."""
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop watching everything; the servers go on running."""
        tasks = list(self._tasks.values())
        for name in list(self._tasks):
            self.forget(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ended(self) -> str:
        """Return when something is no longer watched; answers its name.

        Nothing makes that happen but a mistake in here; but then nobody else would notice.
        """
        watched = dict(self._tasks)
        await asyncio.wait(watched.values(), return_when=asyncio.FIRST_COMPLETED)
        return next(name for name, task in watched.items() if task.done())

    async def _keep_up(self, name: str, start: Start, sick: Sick | None) -> None:
        delay = 0.0
        while True:
            began = time.monotonic()
            try:
                process = await start()
                if process is None:
                    return
                await _ended(process, sick)
                log.warning("process ended", process=name, pid=process.identity.pid, exit_status=process.exit_status())
            except Exception:  # what is wrong now may be right at the next try, and nobody else would try
                log.exception("process could not be started", process=name)
            delay = self._backoff.after(delay, time.monotonic() - began)
            log.info("process is started again", process=name, after_seconds=delay)
            await asyncio.sleep(delay)
            self.restarts[name] += 1


async def _ended(process: ManagedProcess, sick: Sick | None) -> None:
    """Return when it is gone; one that is sick is stopped."""
    gone = asyncio.create_task(process.exited())
    try:
        while not (await asyncio.wait({gone}, timeout=None if sick is None else LOOK_SECONDS))[0]:
            if sick is not None and await sick():
                log.warning("process is sick, and stopped", process=process.name, pid=process.identity.pid)
                await asyncio.to_thread(process.stop, STOP_SECONDS)
        await gone
    finally:
        gone.cancel()
