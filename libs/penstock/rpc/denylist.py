"""Revoked tokens: what every service polls, so that a revocation reaches it within 5 s, or it stops serving."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import structlog

from penstock.errors import PenstockError, Unauthenticated, Unavailable
from penstock.rpc.caller import SERVICE, Caller

MAX_AGE_SECONDS = 5.0
POLL_SECONDS = 1.0
log = structlog.get_logger(__name__)

Fetch = Callable[[], Awaitable[Iterable[str]]]


@dataclass(eq=False)
class OpenCall:
    """A running streaming call that ends when its token does; `ended` says why, once it was cancelled for that."""

    caller: Caller
    task: asyncio.Task[object]
    ended: PenstockError | None = None

    def end(self, reason: PenstockError) -> None:
        """Cancel the call; whoever runs it answers with `reason`."""
        if self.ended is None:
            self.ended = reason
            self.task.cancel()


@dataclass
class Denylist:
    """The ids of revoked tokens, read by `fetch` again and again while `run` runs.

    Tokens of services are not subject to it: they live for minutes, and reading the list needs one.
    """

    fetch: Fetch
    max_age: float = MAX_AGE_SECONDS
    poll: float = POLL_SECONDS
    _ids: frozenset[str] = frozenset()
    _read: float = float("-inf")
    _open: set[OpenCall] = field(default_factory=set)

    def check(self, caller: Caller) -> None:
        """Raise Unauthenticated for a revoked token, Unavailable if the list is too old to tell."""
        if caller.role == SERVICE:
            return
        if time.monotonic() - self._read > self.max_age:
            raise Unavailable("It cannot be told now whether the token was revoked: try again in a few seconds.")
        if caller.token_id in self._ids:
            raise Unauthenticated("The token was revoked: ask for a new one (`penstock admin token create`).")

    @contextmanager
    def watching(self, call: OpenCall) -> Iterator[None]:
        """End the call when its token is revoked or expires, or the list becomes too old, until the block ends."""
        self._open.add(call)
        try:
            yield
        finally:
            self._open.discard(call)

    async def refresh(self) -> None:
        """Read the list once and end the calls that it ends. Raises what `fetch` raises."""
        asked = time.monotonic()  # what comes back may be as old as this
        self._ids = frozenset(await self.fetch())
        self._read = asked
        self._sweep()

    def _sweep(self) -> None:
        now = time.time()
        for call in tuple(self._open):
            try:
                if call.caller.expires and call.caller.expires <= now:
                    raise Unauthenticated("The token has expired: ask for a new one and open the stream again.")
                self.check(call.caller)
            except PenstockError as error:
                call.end(error)

    async def run(self) -> None:
        """Poll forever, and end calls in time even while the list cannot be read."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            group.create_task(self._sweep_often())

    async def _poll(self) -> None:
        while True:
            await self._try_to_read(self.max_age)
            await asyncio.sleep(self.poll)

    async def _try_to_read(self, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                await self.refresh()
        except (PenstockError, grpc.RpcError, TimeoutError, OSError) as error:
            log.warning("denylist not read", error=str(error) or type(error).__name__)

    async def _sweep_often(self) -> None:
        while True:
            due = time.monotonic() + self.poll / 4
            await asyncio.sleep(self.poll / 4)
            if time.monotonic() - due > self.poll:  # this process stood still, and its list is old for that alone
                await self._try_to_read(self.poll)
            self._sweep()
