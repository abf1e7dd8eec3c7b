"""Server streams that follow a document: send it on every change, end when it is final.

The truth is polled (any process may have written it); a signal within the process only makes the next look come sooner.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from penstock.runtime.tasks import set_within

T = TypeVar("T")
POLL_SECONDS = 0.2


class Signals:
    """In-process hints that something about a key (a resource name, say) has changed; one per service."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def notify(self, key: str) -> None:
        """Wake everyone who listens to `key`."""
        for event in self._waiting.get(key, ()):
            event.set()

    @contextmanager
    def listening(self, key: str) -> Iterator[asyncio.Event]:
        """An event that is set by every notify(key) until the block ends; the listener clears it."""
        event = asyncio.Event()
        self._waiting.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[key]
            waiting.discard(event)
            if not waiting:
                del self._waiting[key]


async def watch(
    read: Callable[[], Awaitable[T]],
    *,
    version: Callable[[T], Hashable],
    done: Callable[[T], bool],
    signals: Signals | None = None,
    key: str = "",
    poll: float = POLL_SECONDS,
) -> AsyncIterator[T]:
    """Yield what `read` gives at first and whenever its `version` differs; end after one that is `done`.

    What `read` raises ends the stream (NotFound when the resource is gone). `poll` is in seconds.
    """
    seen: Hashable = None
    first = True
    with (signals or Signals()).listening(key) as changed:
        while True:
            changed.clear()  # before reading, so that a change during the read is not missed
            value = await read()
            if first or version(value) != seen:
                first, seen = False, version(value)
                yield value
            if done(value):
                return
            await set_within(changed, poll)
