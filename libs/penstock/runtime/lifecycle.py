"""How a process lives: background tasks that are restarted when they fail, and a stop that is asked for by a signal."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[None]]
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Backoff:
    """Waits before restarts, in seconds: doubled from `first` to `most`; forgotten after `healthy` of running."""

    first: float = 0.2
    most: float = 30.0
    healthy: float = 30.0

    def after(self, delay: float, uptime: float) -> float:
        """The wait that follows `delay`, for work that ran for `uptime`."""
        return self.first if not delay or uptime >= self.healthy else min(delay * 2, self.most)


@dataclass
class Tasks:
    """Named background work that runs for ever: what fails is logged and started again."""

    backoff: Backoff = Backoff()
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def start(self, name: str, work: Work) -> None:
        """Run `work` in the background until `stop`; the name is for the log."""
        self._running[name] = asyncio.create_task(self._keep_running(name, work), name=name)

    async def _keep_running(self, name: str, work: Work) -> None:
        delay = 0.0
        while True:
            began = time.monotonic()
            try:
                await work()
                log.debug("task done", task=name)
                return
            except asyncio.CancelledError:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
                log.warning("task cancelled itself", task=name)
            except Exception as error:  # a reconciler must outlive whatever one round of it raised
                log.error("task failed", task=name, exc_info=error)
            delay = self.backoff.after(delay, time.monotonic() - began)
            await asyncio.sleep(delay)

    async def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Cancel everything and wait; what does not end within `timeout` seconds is named in the log and left."""
        tasks = list(self._running.values())
        self._running.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout)
            for task in late:
                log.error("task did not end", task=task.get_name())


@asynccontextmanager
async def stop_signal() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set, within the block; a second signal cancels the block's task at once."""
    stop = asyncio.Event()
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def asked(name: str) -> None:
        log.info("stopping", signal=name)
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, asked, number.name)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def until_it_works(what: str, work: Work, retry: type[Exception], backoff: Backoff | None = None) -> None:
    """Do `work`, again and again while it raises `retry` (say, a database that is still starting)."""
    waits, delay = backoff or Backoff(most=5.0), 0.0
    while True:
        try:
            await work()
            return
        except retry as error:
            delay = waits.after(delay, 0.0)
            log.warning("waiting", what=what, error=str(error), seconds=delay)
            await asyncio.sleep(delay)
