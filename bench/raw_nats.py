"""The peer of the events: nats-py as its documentation shows it, on a stream of its own on the same server."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

STREAM = "RAW"
FETCH = 100


class RawNats:
    """Publishes one message after the other, each acknowledged by the stream; and takes them."""

    def __init__(self, client: Client, headers: Mapping[str, str], body: bytes) -> None:
        self._client = client
        self._context: JetStreamContext = client.jetstream()
        self._headers = dict(headers)
        self._body = body
        self._numbers = itertools.count()

    @classmethod
    async def connect(cls, url: str, credentials: Path, headers: Mapping[str, str], body: bytes) -> RawNats:
        """Connect, and make the stream. `headers` and `body` are what each message has, beside its id."""
        raw = cls(await nats.connect(url, user_credentials=str(credentials)), headers, body)
        await raw._context.add_stream(
            api.StreamConfig(name=STREAM, subjects=["raw.>"], storage=api.StorageType.FILE, duplicate_window=600)
        )
        return raw

    async def publish(self) -> None:
        """One message."""
        number = next(self._numbers)
        await self._context.publish(
            "raw.run.started", self._body, headers={**self._headers, "Nats-Msg-Id": f"{number}"}
        )

    async def publishing(self, count: int) -> float:
        """Seconds to publish `count` messages, one after the other."""
        began = time.perf_counter()
        for _ in range(count):
            await self.publish()
        return time.perf_counter() - began

    async def consuming(self, count: int) -> float:
        """Seconds to fetch and acknowledge `count` messages that are in the stream."""
        await self._context.purge_stream(STREAM)
        await self.publishing(count)
        subscription = await self._context.pull_subscribe("raw.>", durable=f"bench-{next(self._numbers)}")
        began, left = time.perf_counter(), count
        while left:
            for message in await subscription.fetch(min(FETCH, left), timeout=5):
                await message.ack()
                left -= 1
        took = time.perf_counter() - began
        await subscription.unsubscribe()
        return took

    async def latencies(self, count: int) -> list[float]:
        """Seconds from each call of publish to the callback of a subscriber, one at a time."""
        arrived = asyncio.Event()
        at = 0.0

        async def callback(message: Msg) -> None:
            nonlocal at
            at = time.perf_counter()
            arrived.set()

        subscription = await self._context.subscribe(
            "raw.>", cb=callback, config=api.ConsumerConfig(deliver_policy=api.DeliverPolicy.NEW)
        )
        found = []
        for _ in range(count):
            arrived.clear()
            began = time.perf_counter()
            await self.publish()
            await arrived.wait()
            found.append(at - began)
        await subscription.unsubscribe()
        return found

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()
