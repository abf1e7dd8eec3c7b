"""Requests that are no messages, or far too long: refused in our own words, after the caller was identified."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from penstock.rpc import access, calls
from tests.integration.rpc import echo_service
from tests.integration.rpc.echo_service import NAME, SERVICE, Platform, messages

NO_MESSAGE = b"\x0a\xff"
NO_TEXT = b"\x0a\x02\xff\xfe"


async def answer(platform: Platform, body: bytes, token: str | None, method: str = "GetEcho") -> tuple[str, str]:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    async with echo_service.bare_channel(platform) as channel:
        make: Any = channel.unary_stream if method == "WatchEcho" else channel.unary_unary
        running = make(f"/{SERVICE}/{method}")(body, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            if method == "WatchEcho":
                await anext(aiter(running))
            else:
                await running
    return caught.value.code().name, caught.value.details() or ""


@pytest.mark.parametrize("method", ["GetEcho", "WatchEcho", "CreateEcho"])
@pytest.mark.parametrize("body", [NO_MESSAGE, NO_TEXT])
async def test_what_is_no_message_is_the_caller_s_error_and_shows_nothing_of_ours(
    platform: Platform, method: str, body: bytes
) -> None:
    assert (await answer(platform, body, None, method))[0] == "UNAUTHENTICATED"
    code, text = await answer(platform, body, platform.token("editor"), method)
    assert code == "INVALID_ARGUMENT"
    assert "cannot be parsed" in text and "protobuf" not in text


async def test_without_the_decoder_the_exception_itself_would_be_the_answer(
    monkeypatch: pytest.MonkeyPatch, platform: Platform
) -> None:
    monkeypatch.setattr(calls, "lenient", lambda decode: decode)
    code, text = await answer(platform, NO_MESSAGE, None)
    assert code == "UNKNOWN" and "DecodeError" in text


async def test_a_text_that_would_burst_every_page_is_refused_with_its_field(platform: Platform) -> None:
    body = messages.CreateEchoRequest(parent="projects/vision", echo=messages.Echo(text="x" * (access.MAX_TEXT + 1)))
    code, text = await answer(platform, body.SerializeToString(), platform.token("editor"), "CreateEcho")
    assert code == "INVALID_ARGUMENT" and str(access.MAX_TEXT) in text
    assert NAME.startswith(body.parent)
