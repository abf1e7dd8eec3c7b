"""Following events as they happen, for people and programs that watch: nothing is stored or acknowledged."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import api

from penstock.errors import InvalidArgument
from penstock.events import subjects
from penstock.events.bus import Bus
from penstock.events.envelope import Event, decode
from penstock.events.external_form import decode_external
from penstock.events.pull import ConsumerGone, Puller
from penstock.events.registry import short_type

log = logging.getLogger(__name__)

_IDLE = 60.0  # seconds until the server forgets a watcher that left without a word


async def tail(
    bus: Bus, types: Sequence[str] = (), project: str | None = None, since: datetime | None = None
) -> AsyncGenerator[Event, None]:
    """Events of a project (None: of all), from now or `since` on, for ever; those from outside too.

    `types` are types, or beginnings of types before a dot (`training.run`); none means all. Close the iterator.
    """
    queue: asyncio.Queue[Event] = asyncio.Queue(maxsize=1_000)
    pumps = [
        asyncio.create_task(_pump(bus, subjects.STREAM, subjects.project_filters(project), since, queue)),
        asyncio.create_task(_pump(bus, subjects.EXTERNAL_STREAM, [subjects.external_filter(project)], since, queue)),
    ]
    wanted = tuple(map(short_type, types))
    try:
        while True:
            event = await queue.get()
            if not wanted or any(event.type == type or event.type.startswith(f"{type}.") for type in wanted):
                yield event
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(bus: Bus, stream: str, filters: list[str], since: datetime | None, queue: asyncio.Queue[Event]) -> None:
    """One stream's messages into the queue; a consumer that the server lost is made again after the last message."""
    last: int | None = None
    while True:
        name = f"tail-{secrets.token_hex(8)}"
        try:
            if last is None and since is None:
                last = await bus.last_sequence(stream)
            await bus.make_consumer(stream, _config(name, filters, since, last))
            async with Puller(bus, stream, name) as puller:
                while True:
                    for message in await puller.next():
                        last = message.metadata.sequence.stream
                        with suppress(InvalidArgument):  # malformed: its consumers keep it as a dead letter
                            await queue.put(_decode(stream, message))
        except (ConsumerGone, NatsError, TimeoutError) as error:
            log.info("watching %s goes on after: %s", stream, error or type(error).__name__)
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            with suppress(NatsError, TimeoutError):
                await bus.delete_consumer(stream, name)
            raise


def _decode(stream: str, message: Msg) -> Event:
    headers = message.headers or {}
    if stream == subjects.EXTERNAL_STREAM:
        return decode_external(message.subject, headers, message.data)
    return decode(headers, message.data)


def _config(name: str, filters: list[str], since: datetime | None, last: int | None) -> api.ConsumerConfig:
    common = api.ConsumerConfig(
        name=name,
        filter_subjects=filters,
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=_IDLE,
        mem_storage=True,
    )
    if last is not None:
        return common.evolve(deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=last + 1)
    return common.evolve(deliver_policy=api.DeliverPolicy.BY_START_TIME, opt_start_time=since)
