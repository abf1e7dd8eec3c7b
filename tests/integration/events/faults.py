"""Faults at the k-th store write or publish, injected at the two functions that all of them pass."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, TypeVar

import nats.errors
import pymongo.errors

from penstock.events import bus as bus_module
from penstock.store import database as database_module

T = TypeVar("T")


class Fault(Enum):
    """What happens at the k-th operation."""

    FAIL_BEFORE = "fail before"  # an error, and the operation was not done
    FAIL_AFTER = "fail after"  # an error, and the operation was done: its outcome is unknown to the caller
    DIE_BEFORE = "die before"  # nothing of this process happens any more
    DIE_AFTER = "die after"
    KILL_BEFORE = "kill before"  # the same, by SIGKILL
    KILL_AFTER = "kill after"


class Injector:
    """Counts operations and lets the k-th one fail; k = 0 only counts."""

    def __init__(self, k: int, fault: Fault) -> None:
        self.k = k
        self.fault = fault
        self.count = 0
        self.died = asyncio.Event()

    @property
    def fired(self) -> bool:
        return 0 < self.k <= self.count

    async def around(self, operation: Callable[[], Awaitable[T]], error: Exception) -> T:
        await self._dead()
        self.count += 1
        if self.count != self.k:
            result = await operation()
            await self._dead()
            return result
        if self.fault is Fault.DIE_BEFORE:
            await self._die()
        if self.fault is Fault.KILL_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault is Fault.FAIL_BEFORE:
            raise error
        await operation()
        if self.fault is Fault.KILL_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault is Fault.DIE_AFTER:
            await self._die()
        raise error

    async def _die(self) -> None:
        self.died.set()
        await self._dead()

    async def _dead(self) -> None:
        """A dead process goes no further: whoever comes here after the fault waits until it is cancelled."""
        if self.died.is_set():
            await asyncio.get_running_loop().create_future()


@contextmanager
def injected(injector: Injector) -> Iterator[Injector]:
    """Let all writes and publishes of this process pass the injector."""
    write, publish = database_module.write, bus_module.publish

    async def faulty_write(operation: Callable[[], Awaitable[T]]) -> T:
        return await injector.around(lambda: write(operation), pymongo.errors.AutoReconnect("injected"))

    async def faulty_publish(context: Any, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
        await injector.around(lambda: publish(context, subject, body, headers), nats.errors.TimeoutError())

    database_module.write, bus_module.publish = faulty_write, faulty_publish
    try:
        yield injector
    finally:
        database_module.write, bus_module.publish = write, publish
