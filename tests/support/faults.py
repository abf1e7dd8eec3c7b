"""Kills at the k-th write of the store: from that write on the process is dead, until a test starts another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from penstock.store import database


class Killed(BaseException):
    """The process ends here. No handler of the product can catch it, as none can catch SIGKILL."""


class KilledWrites:
    """Wraps the one function through which the store writes.

    `carried_out` says whether the write at which the process dies has reached the database. `count` is the number of
    writes of the last block, `fired` whether the kill came.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, carried_out: bool) -> None:
        self.count = 0
        self.fired = False
        self._kill_at = 0
        self._active = False
        self._carried_out = carried_out
        self._dead = asyncio.Event()
        real = database.write

        async def write(operation: Callable[[], Awaitable[Any]]) -> Any:
            if not self._active:
                return await real(operation)
            if self._dead.is_set():
                raise Killed
            self.count += 1
            if self.count != self._kill_at:
                return await real(operation)
            self._dead.set()
            self.fired = True
            if self._carried_out:
                await real(operation)
            raise Killed

        monkeypatch.setattr(database, "write", write)

    @contextlib.contextmanager
    def kill_at(self, number: int) -> Iterator[None]:
        """Kill at that write (counted from 1) of the block; 0 only counts."""
        asyncio.get_running_loop().set_exception_handler(_report_unless_killed)
        self.count, self._kill_at, self._active, self.fired = 0, number, True, False
        self._dead.clear()
        try:
            yield
        finally:
            self._active = False

    async def killed_or(self, work: Callable[[], Awaitable[Any]], timeout: float = 30.0) -> None:
        """Wait for the work to be done, or for the kill."""
        working = asyncio.ensure_future(work())
        dying = asyncio.create_task(self._dead.wait())
        async with asyncio.timeout(timeout):
            await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, dying):
            task.cancel()
        with contextlib.suppress(Killed, asyncio.CancelledError):
            await working
        with contextlib.suppress(asyncio.CancelledError):
            await dying


def _report_unless_killed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody asks the tasks of a dead process how they ended."""
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)
