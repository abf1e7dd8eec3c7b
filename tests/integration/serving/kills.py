"""Kills of the serving service at its k-th step that outlasts it: a write of the store or an update of an edge file."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.edge import files
from penstock.store import database
from tests.support.faults import Killed


class Kills:
    """Wraps the two functions through which the service writes.

    `count` is the number of steps of the last block, `kinds` what they were. After a kill every further step of the
    block is one too: the process is dead. `carried_out` says whether the step at which it died was still done. Without
    `edge` only writes of the store are steps.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, edge: bool = True) -> None:
        self.count = 0
        self.kinds: list[str] = []
        self.dead = asyncio.Event()
        self._kill_at = 0
        self._carried_out = False
        self._active = False
        self._turn = threading.Lock()
        self._loop = asyncio.get_running_loop()
        real_write, real_replace = database.write, files.replace

        async def write(operation: Callable[[], Awaitable[Any]]) -> Any:
            if not self._reached("store"):
                return await real_write(operation)
            if self._carried_out:
                await real_write(operation)
            raise Killed

        def replace(path: Path, content: bytes) -> None:
            if not self._reached(path.name):
                return real_replace(path, content)
            if self._carried_out:
                real_replace(path, content)
            raise Killed

        monkeypatch.setattr(database, "write", write)
        if edge:
            monkeypatch.setattr(files, "replace", replace)

    def _reached(self, kind: str) -> bool:
        """Count a step; whether the process dies at it. Raises Killed if it is dead already."""
        with self._turn:
            if not self._active:
                return False
            if self.dead.is_set():
                raise Killed
            self.count += 1
            self.kinds.append(kind)
            if self.count != self._kill_at:
                return False
            self.dead._value = True  # type: ignore[attr-defined]  # at once, whatever thread this is
            self._loop.call_soon_threadsafe(self.dead.set)
            return True

    @contextlib.contextmanager
    def kill_at(self, number: int, *, carried_out: bool = False) -> Iterator[None]:
        """Kill at that step (counted from 1) of the block; 0 only counts."""
        self.count, self.kinds, self._kill_at, self._carried_out = 0, [], number, carried_out
        self.dead.clear()
        self._active = True
        try:
            yield
        finally:
            self._active = False
