"""NATS and disks: how much it thinks it may store, and a disk that was full for a while."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from nats.js import JetStreamContext, api

from penstock.backing import nats, supervisor
from penstock.backing.nats import NatsServer
from penstock.backing.supervisor import Backoff, Supervisor
from penstock.errors import ResourceExhausted, Unavailable
from penstock.events import Bus, subjects
from penstock.events import bus as bus_module
from penstock.events.credentials import Permissions
from tests.integration.backing.waiting import until

ANYTHING = Permissions((">",), (">",))
SUBJECT = "penstock.tests.training.run.r1.succeeded"


@pytest.fixture
async def server(home: Path) -> AsyncIterator[NatsServer]:
    """A NATS of this test's own, not started."""
    made = NatsServer(home)
    yield made
    if made.process is not None:
        made.process.stop(2)


async def connect(server: NatsServer, max_age: timedelta = timedelta(days=30)) -> Bus:
    return await Bus.connect(server.url, server.credentials("all", ANYTHING), "all", max_age=max_age)


async def configuration(bus: Bus) -> api.StreamConfig:
    return (await bus.context.stream_info(subjects.STREAM)).config


@contextmanager
def no_room(server: NatsServer) -> Iterator[None]:
    """Files of the server cannot grow: to it, that is a full disk."""
    assert server.process is not None
    pid = server.process.identity.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    yield
    with suppress(ProcessLookupError):  # it may have been started again meanwhile
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def test_the_streams_fit_however_little_is_free(server: NatsServer) -> None:
    process = await server.start(attached=True)
    url = f"http://127.0.0.1:{process.facts['monitor_port']}/jsz?config=true"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert (await answer.json())["config"]["max_storage"] == 2**40


async def test_streams_that_are_there_need_no_room_to_be_reserved_anew(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await server.start(attached=True)
    await (await connect(server)).close()
    process.stop()
    monkeypatch.setattr(nats, "MAX_FILE_STORE", "1GB")
    await server.start(attached=True)
    await (await connect(server)).close()


async def test_too_little_room_for_streams_is_a_full_disk(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "MAX_FILE_STORE", "1GB")
    await server.start(attached=True)
    with pytest.raises(ResourceExhausted, match="disk full"):
        await connect(server)


async def test_a_stream_is_updated_only_where_it_differs(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    updated: list[str | None] = []
    update = JetStreamContext.update_stream

    async def counted(self: JetStreamContext, config: api.StreamConfig) -> api.StreamInfo:
        updated.append(config.name)
        return await update(self, config)

    monkeypatch.setattr(JetStreamContext, "update_stream", counted)
    await server.start(attached=True)
    for _ in range(2):
        await (await connect(server)).close()
    assert updated == []
    bus = await connect(server, timedelta(days=20))
    assert updated == [subjects.STREAM]
    assert (await configuration(bus)).max_age == timedelta(days=20).total_seconds()
    await bus.close()


async def test_events_flow_again_after_a_full_disk(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.1)
    await server.start(attached=True)
    bus = await connect(server)
    looked = asyncio.Event()

    async def sick() -> bool:
        looked.set()
        return await server.sick()

    watching = Supervisor(Backoff(first=0.05))
    watching.watch("nats", server.start, sick)
    await looked.wait()
    await bus.send(SUBJECT, b"before", {})
    monkeypatch.setattr(bus_module, "PUBLISH_TIMEOUT", 1.0)
    with no_room(server), pytest.raises(Unavailable):
        await bus.send(SUBJECT, b"x" * 10_000, {})
    monkeypatch.setattr(bus_module, "PUBLISH_TIMEOUT", 10.0)
    await until(lambda: bus.connections == 2, 30)
    await bus.send(SUBJECT, b"after", {})
    assert await bus.last_sequence(subjects.STREAM) == 2
    await bus.close()
    await watching.close()


async def test_a_start_adopts_no_nats_that_takes_nothing_more(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await server.start(attached=True)
    bus = await connect(server)
    await bus.send(SUBJECT, b"before", {})
    monkeypatch.setattr(bus_module, "PUBLISH_TIMEOUT", 1.0)
    with no_room(server), pytest.raises(Unavailable):
        await bus.send(SUBJECT, b"x" * 10_000, {})
    with pytest.raises(Unavailable):
        await bus.send(SUBJECT, b"there is room again", {})
    after = await NatsServer(server.home).start(attached=True)
    assert after.identity != before.identity
    monkeypatch.setattr(bus_module, "PUBLISH_TIMEOUT", 10.0)
    await until(lambda: bus.connections == 2, 30)
    await bus.send(SUBJECT, b"after", {})
    await bus.close()
    after.stop(2)
