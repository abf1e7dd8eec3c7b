"""Work that is found in the database and done until nothing is left of it, whoever began it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from penstock.runtime.tasks import KeyedTasks, set_within

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 2.0
RETRY_SECONDS = 2.0


class Reconciler:
    """Visits what `find` names: one visit of a name at a time, at most `parallel` in all.

    It looks every two seconds anyway, and after each visit. A visit that fails is logged and repeated.
    """

    def __init__(
        self,
        name: str,
        find: Callable[[], Awaitable[Sequence[str]]],
        visit: Callable[[str], Awaitable[None]],
        *,
        parallel: int = 4,
    ) -> None:
        self._name = name
        self._find = find
        self._visit = visit
        self._parallel = asyncio.Semaphore(parallel)
        self._woken = asyncio.Event()
        self._named: set[str] = set()
        self._look = True
        self._running = KeyedTasks()

    def wake(self, key: str) -> None:
        """Visit `key` now: there is something to do."""
        self._named.add(key)
        self._woken.set()

    async def run(self) -> None:
        """Look and work for ever."""
        looked = 0.0
        try:
            while True:
                self._woken.clear()
                while self._named:
                    self._begin(self._named.pop())
                if self._look or time.monotonic() - looked >= SWEEP_SECONDS:
                    self._look, looked = False, time.monotonic()
                    for key in await self._find():
                        self._begin(key)
                await set_within(self._woken, SWEEP_SECONDS)
        finally:
            await self._running.close()

    def _begin(self, key: str) -> None:
        self._running.start(key, partial(self._work, key))

    async def _work(self, key: str) -> None:
        try:
            async with self._parallel:
                await self._visit(key)
        except Exception as error:  # the others' work goes on, and this is found again
            log.error("reconciling failed", reconciler=self._name, key=key, exc_info=error)
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._look = True
            self._woken.set()
