"""Open streams end when their token does, when the denylist cannot be read, and when the server stops."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
import structlog

from penstock.errors import Unauthenticated, Unavailable
from penstock.rpc import denylist
from penstock.rpc.watch import Signals, watch
from tests.integration.rpc import echo_service
from tests.integration.rpc.echo_service import NAME, Platform, messages

GET = messages.GetEchoRequest(name=NAME)


async def consume(stub: Any) -> None:
    async for _ in stub.WatchEcho(GET):
        pass


async def opened(platform: Platform, token: str) -> asyncio.Task[None]:
    """A stream that has received its first message."""
    first = asyncio.Event()

    async def run() -> None:
        async for _ in platform.stub(token).WatchEcho(GET):
            first.set()

    task = asyncio.create_task(run())
    await asyncio.wait_for(first.wait(), 5)
    return task


async def test_a_revoked_token_ends_its_streams_within_five_seconds_and_no_others() -> None:
    platform = await echo_service.start(poll=denylist.POLL_SECONDS)  # as in production
    try:
        revoked = await opened(platform, platform.token(token_id="t1"))
        other = await opened(platform, platform.token(token_id="t2"))
        platform.denied.add("t1")
        began = time.monotonic()
        with pytest.raises(Unauthenticated, match="revoked"):
            await asyncio.wait_for(revoked, 5)
        assert time.monotonic() - began < 5
        assert not other.done()
        other.cancel()
    finally:
        await platform.close()


async def test_without_the_sweep_a_stream_of_a_revoked_token_would_go_on(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    monkeypatch.setattr(denylist.Denylist, "_sweep", lambda self: None)
    task = await opened(platform, platform.token(token_id="t1"))
    platform.denied.add("t1")
    await asyncio.sleep(0.5)  # five polls
    assert not task.done()
    task.cancel()


async def test_streams_end_when_the_denylist_cannot_be_read_for_long() -> None:
    platform = await echo_service.start(poll=0.05, max_age=1.5)
    try:
        task = await opened(platform, platform.token())
        platform.readable = False
        with pytest.raises(Unavailable, match="cannot be told now"):
            await asyncio.wait_for(task, 5)
    finally:
        await platform.close()


async def test_a_stream_ends_when_its_token_expires(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    task = await opened(platform, platform.token(ttl=60))
    now = time.time()
    monkeypatch.setattr("penstock.rpc.denylist.time.time", lambda: now + 61)
    with pytest.raises(Unauthenticated, match="expired"):
        await asyncio.wait_for(task, 5)


async def test_a_stream_to_a_reader_that_does_not_read_ends_too(platform: Platform) -> None:
    ended = asyncio.Event()

    async def flood(request: Any, context: Any) -> Any:
        try:
            while True:
                yield messages.Echo(text="x" * 1_000_000)
        finally:
            ended.set()

    platform.servicer.stream = flood
    async with echo_service.bare_channel(platform) as channel:
        metadata = (("authorization", f"Bearer {platform.token(token_id='t1')}"),)
        call = echo_service.services.EchoServiceStub(channel).WatchEcho(GET, metadata=metadata)
        await call.read()
        await asyncio.sleep(0.2)  # the windows are full now
        platform.denied.add("t1")
        await asyncio.wait_for(ended.wait(), 5)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            while True:
                assert await asyncio.wait_for(call.read(), 5) is not grpc.aio.EOF


async def test_a_client_that_leaves_a_full_stream_is_no_error(platform: Platform) -> None:
    async def flood(request: Any, context: Any) -> Any:
        while True:
            yield messages.Echo(text="x" * 10_000)

    platform.servicer.stream = flood
    with structlog.testing.capture_logs() as logs:
        async for _ in platform.stub().WatchEcho(GET):
            break
        await echo_service.eventually(lambda: len(logs) > 0)
    assert [(entry["event"], entry.get("code")) for entry in logs] == [("call", "CANCELLED")]


async def test_a_client_that_leaves_ends_the_servicer(platform: Platform) -> None:
    ended = asyncio.Event()

    async def endless(request: Any, context: Any) -> Any:
        try:
            yield messages.Echo()
            await asyncio.Event().wait()
        finally:
            ended.set()

    platform.servicer.stream = endless
    task = await opened(platform, platform.token())
    task.cancel()
    await asyncio.wait_for(ended.wait(), 5)


async def test_watch_sends_each_change_and_ends_at_the_final_state(platform: Platform) -> None:
    state = {"version": 1, "done": False}
    signals = Signals()

    async def read() -> dict[str, Any]:
        return dict(state)

    async def stream(request: Any, context: Any) -> Any:
        follow = watch(
            read, version=lambda v: v["version"], done=lambda v: v["done"], signals=signals, key=NAME, poll=30
        )
        async for value in follow:
            yield messages.Echo(text=str(value["version"]))

    platform.servicer.stream = stream
    got: list[str] = []

    async def run() -> None:
        async for message in platform.stub().WatchEcho(GET):
            got.append(message.text)
            if len(got) < 3:
                state["version"] += 1
                state["done"] = state["version"] == 3
                signals.notify(NAME)

    await asyncio.wait_for(run(), 5)
    assert got == ["1", "2", "3"]
    assert signals._waiting == {}
