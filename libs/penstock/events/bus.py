"""The connection to NATS: streams made, events published with the outcome known, reconnecting for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from penstock.errors import ResourceExhausted, Unavailable
from penstock.events import subjects
from penstock.events.credentials import inbox_prefix
from penstock.events.envelope import Event, encode
from penstock.events.figures import EventFigures

log = logging.getLogger(__name__)

T = TypeVar("T")
MESSAGE_ID = "Nats-Msg-Id"
# A repeated publish of the same id within this time is dropped by the server; later ones are, by the consumers.
DUPLICATE_WINDOW = timedelta(minutes=10)
PUBLISH_TIMEOUT = 5.0  # seconds until the outcome of a publish counts as unknown


async def publish(context: JetStreamContext, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Publish and wait until the stream has it. Every publish passes here, so that tests can fail the k-th one."""
    await context.publish(subject, body, timeout=PUBLISH_TIMEOUT, headers=dict(headers))


async def cancellable(operation: Coroutine[Any, Any, T]) -> T:
    """Await a request of nats-py, which may swallow a cancellation (`wait_for` of Python 3.11 does)."""
    task = asyncio.create_task(operation)
    # If it is abandoned, nobody asks for its error.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


class Bus:
    """A connection to NATS and the streams of events on it."""

    def __init__(self, client: Client, figures: EventFigures | None = None) -> None:
        self.client = client
        self.figures = figures or EventFigures()
        self.context: JetStreamContext = client.jetstream(timeout=PUBLISH_TIMEOUT)
        self.connections = 1  # how often a connection was made: a new one has forgotten all pull requests

    @classmethod
    async def connect(
        cls,
        url: str,
        credentials: Path | str | None = None,
        name: str = "penstock",
        *,
        max_age: timedelta = timedelta(days=30),
        replicas: int = 1,
        figures: EventFigures | None = None,
    ) -> Bus:
        """Connect (waiting for the server as long as it takes) and make the streams.

        `credentials` is a `.creds` file; `name` the user's, whose inboxes alone it may read. Events stay in the
        stream for `max_age`; whoever comes later gets them from their owners.
        """
        bus = cls(Client(), figures)

        async def reconnected() -> None:
            bus.connections += 1
            log.info("connected to NATS again")

        async def complained(error: Exception) -> None:
            log.warning("NATS: %s", error or type(error).__name__)

        options: dict[str, Any] = {"reconnect_time_wait": 0.25}
        if credentials is not None:
            options["user_credentials"] = str(credentials)
        await bus.client.connect(
            url,
            name=name,
            inbox_prefix=inbox_prefix(name).encode(),
            max_reconnect_attempts=-1,
            ping_interval=10,
            max_outstanding_pings=2,
            connect_timeout=3,
            reconnected_cb=reconnected,
            error_cb=complained,
            **options,
        )
        await bus._make_streams(max_age, replicas)
        return bus

    async def close(self) -> None:
        """Send what is buffered, then disconnect."""
        try:
            await self.client.flush(timeout=2)
        except (NatsError, TimeoutError):
            log.debug("NATS did not take the last messages")
        await self.client.close()

    async def publish(self, event: Event) -> None:
        """Publish one of Penstock's own events; raises Unavailable if the outcome is not known to be good."""
        headers, body = encode(event)
        await self.send(subjects.subject_of(event.subject, event.type), body, {**headers, MESSAGE_ID: event.id})

    async def send(self, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Publish to a stream; raises Unavailable if the outcome is not known to be good: send it again, same id."""
        try:
            await cancellable(publish(self.context, subject, body, headers))
        except (NatsError, TimeoutError, OSError) as error:
            raise Unavailable(f"NATS did not take a message: {error or type(error).__name__}.") from error

    async def make_consumer(self, stream: str, config: api.ConsumerConfig) -> None:
        """Make a consumer of a stream, or bring it to this configuration. Raises what nats-py raises."""
        await cancellable(self.context.add_consumer(stream, config))

    async def delete_consumer(self, stream: str, name: str) -> None:
        """Delete a consumer of a stream. Raises what nats-py raises."""
        await cancellable(self.context.delete_consumer(stream, name))

    async def last_sequence(self, stream: str) -> int:
        """The sequence of a stream's last message. Raises what nats-py raises."""
        return (await cancellable(self.context.stream_info(stream))).state.last_seq

    async def _make_streams(self, max_age: timedelta, replicas: int) -> None:
        day = timedelta(days=1)
        for name, listened, age in (
            (subjects.STREAM, subjects.STREAM_SUBJECTS, max_age),
            (subjects.EXTERNAL_STREAM, subjects.EXTERNAL_SUBJECTS, min(max_age, 7 * day)),
            (subjects.REPLAY_STREAM, subjects.REPLAY_SUBJECTS, day),
        ):
            config = api.StreamConfig(
                name=name,
                subjects=list(listened),
                storage=api.StorageType.FILE,
                max_age=age.total_seconds(),
                num_replicas=replicas,
                duplicate_window=min(DUPLICATE_WINDOW, age).total_seconds(),
                allow_atomic=True,
                allow_direct=True,
                max_bytes=_MAX_BYTES.get(name),
            )
            await self._make_stream(config)

    async def _make_stream(self, config: api.StreamConfig) -> None:
        """Make a stream, or bring it to this configuration; JetStream may still be starting."""
        for delay in (0.1, 0.3, 1.0, 2.0, 4.0, None):
            try:
                try:
                    found = (await self.context.stream_info(str(config.name))).config
                except NotFoundError:
                    await self.context.add_stream(config)
                else:
                    # Each update has NATS reserve the room anew, which it refuses where the disk has become full.
                    if _differs(found, config):
                        await self.context.update_stream(config)
                return
            except (NatsError, TimeoutError, APIError) as error:
                if isinstance(error, APIError) and error.err_code == _NO_ROOM:
                    raise ResourceExhausted(
                        f"NATS has no room for the event stream {config.name}: is its disk full? Free some space "
                        "there, or raise max_file_store in NATS's configuration."
                    ) from error
                if delay is None:
                    raise Unavailable(f"The event stream {config.name} could not be made: {error}") from error
                await asyncio.sleep(delay)


_NO_ROOM = 10047  # NATS's code for "insufficient storage resources available"
_MAX_BYTES = {subjects.EXTERNAL_STREAM: 2**30, subjects.REPLAY_STREAM: 4 * 2**30}


def _differs(found: api.StreamConfig, wanted: api.StreamConfig) -> bool:
    """Whether a stream lacks something of the configuration that it should have."""
    default, has = api.StreamConfig().as_dict(), found.as_dict()
    return any(has.get(key) != value for key, value in wanted.as_dict().items() if value != default.get(key))
