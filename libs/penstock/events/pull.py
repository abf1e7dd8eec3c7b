"""Messages of a JetStream consumer as they come.

nats-py's `fetch(100)` waits until it has a hundred or its time is over; here a request for many stays open at the
server, and each message is handed on at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from penstock.events.bus import Bus

BATCH = 100
_EXPIRES = 60.0  # seconds that a request stays open
_HEARTBEAT = 5.0  # seconds; the server says this often that a request is still open
_NO_RESPONDERS, _HEARTBEAT_STATUS, _CONFLICT = "503", "100", "409"


class ConsumerGone(Exception):
    """The server does not know the consumer (any more)."""


class Puller:
    """Pulls from one consumer. Use as an asynchronous context manager."""

    def __init__(self, bus: Bus, stream: str, consumer: str) -> None:
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = bus.client.new_inbox()
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._wanted = 0  # messages that open requests still ask for
        self._connection = 0
        self._heard = 0.0

    async def __aenter__(self) -> Puller:
        self._subscription = await self._bus.client.subscribe(self._inbox, cb=self._arrived.put)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._subscription is not None:
            with contextlib.suppress(NatsError):
                await self._subscription.unsubscribe()

    async def next(self) -> list[Msg]:
        """At least one message, and whatever else is here. Raises ConsumerGone; waits while there is no connection."""
        while True:
            await self._ask()
            messages: list[Msg] = []
            try:
                async with asyncio.timeout(1.0):
                    first = await self._arrived.get()
            except TimeoutError:
                continue
            self._heard = time.monotonic()
            self._take(first, messages)
            while not self._arrived.empty() and len(messages) < BATCH:
                self._take(self._arrived.get_nowait(), messages)
            if messages:
                return messages

    async def _ask(self) -> None:
        """Keep a request open; after a new connection or a long silence the old ones are taken for lost."""
        silent = time.monotonic() - self._heard > 2.5 * _HEARTBEAT
        if self._connection != self._bus.connections or silent:
            self._wanted = 0
            self._connection = self._bus.connections
        if self._wanted > BATCH // 2 or not self._bus.client.is_connected:
            return
        request = {"batch": BATCH, "expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
        self._wanted += BATCH
        self._heard = time.monotonic()
        await self._bus.client.publish(self._subject, json.dumps(request).encode(), reply=self._inbox)

    def _take(self, message: Msg, messages: list[Msg]) -> None:
        headers = message.headers or {}
        status = headers.get("Status")
        if status is None or message.data:
            self._wanted -= 1
            messages.append(message)
        elif status == _NO_RESPONDERS or (status == _CONFLICT and "Deleted" in headers.get("Description", "")):
            raise ConsumerGone
        elif status != _HEARTBEAT_STATUS:  # a request is over: its time, or the server's patience
            unserved = headers.get("Nats-Pending-Messages", "")
            self._wanted -= int(unserved) if unserved.isdigit() else self._wanted
