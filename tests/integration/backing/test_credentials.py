"""What NATS lets each kind of user do, asked of the real server."""

from __future__ import annotations

import asyncio
import dataclasses
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client

from penstock.backing.stack import Stack
from penstock.errors import InvalidArgument
from penstock.events.credentials import (
    Permissions,
    create_authority,
    external_permissions,
    inbox_prefix,
    mint,
    mint_user,
    service_permissions,
)
from tests.integration.backing.waiting import until

STREAM = "CREDENTIALS"


class User:
    """A connection, and what the server complained about on it."""

    def __init__(self, client: Client, errors: list[str]) -> None:
        self.client = client
        self.errors = errors

    async def refused(self) -> bool:
        """Whether the server refused anything so far."""
        await self.client.flush()
        await asyncio.sleep(0.02)
        return any("permissions violation" in error.lower() for error in self.errors)


@asynccontextmanager
async def connected(stack: Stack, name: str, permissions: Permissions, ttl: float | None = None) -> AsyncIterator[User]:
    errors: list[str] = []

    async def on_error(error: Exception) -> None:
        errors.append(str(error))

    client = await nats.connect(
        stack.nats_url,
        user_credentials=str(stack.credentials(name, permissions, ttl)),
        inbox_prefix=inbox_prefix(name),
        error_cb=on_error,
        allow_reconnect=False,
    )
    try:
        yield User(client, errors)
    finally:
        await client.close()


@pytest.fixture
async def stream(stack: Stack) -> AsyncIterator[User]:
    """A stream over all events of two projects, seen by a user that may do anything."""
    async with connected(stack, "all", Permissions((">",), (">",))) as user:
        await user.client.jetstream().add_stream(name=STREAM, subjects=["penstock.cp.>", "penstock.cq.>"])
        yield user
        await user.client.jetstream().delete_stream(STREAM)


async def subjects(stream: User) -> list[str]:
    info = await stream.client.jetstream().stream_info(STREAM, subjects_filter=">")
    return sorted(info.state.subjects or {})


async def test_an_external_publisher_gets_the_acknowledgement_of_its_event(stack: Stack, stream: User) -> None:
    async with connected(stack, "lab", external_permissions("lab", "cp")) as user:
        headers = {"ce-id": "1", "ce-type": "org.lab.scanned"}
        ack = await user.client.jetstream().publish("penstock.cp.external.lab.scanned", b"{}", headers=headers)
        stored = await stream.client.jetstream().get_msg(STREAM, ack.seq)
    assert stored.headers is not None
    assert stored.headers["ce-type"] == "org.lab.scanned"


@pytest.mark.parametrize(
    "subject",
    [
        "penstock.cq.external.lab.scanned",
        "penstock.cp.training.run.r1.succeeded",
        "penstock.cp.externals.a",
        "$JS.API.STREAM.DELETE.CREDENTIALS",
        "$JS.API.INFO",
        "_INBOX_all.x",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_an_external_publisher_may_publish_nothing_else(stack: Stack, stream: User, subject: str) -> None:
    async with connected(stack, "lab", external_permissions("lab", "cp")) as user:
        await user.client.publish(subject, b"{}")
        assert await user.refused()
    assert await subjects(stream) == []


@pytest.mark.parametrize(
    "subject", [">", "penstock.>", "penstock.cp.external.>", "_INBOX_other.>", "_INBOX.>", "$JS.>"]
)
async def test_an_external_publisher_hears_nothing_but_its_inbox(stack: Stack, stream: User, subject: str) -> None:
    async with connected(stack, "lab", external_permissions("lab", "cp")) as user:
        await user.client.subscribe(subject)
        assert await user.refused()


SPOOFED = ["penstock.cp.training.run.r1.succeeded", "penstock.cq.external.lab.scanned"]


async def _acknowledged_to(stack: Stack, stream: User, permissions: Permissions, wanted: set[str]) -> list[str]:
    """What is stored once all that is wanted is, and a moment after."""
    async with connected(stack, "lab", permissions) as user:
        for reply in [*SPOOFED, "$JS.API.STREAM.PURGE.CREDENTIALS"]:
            await user.client.publish("penstock.cp.external.lab.scanned", b"{}", reply=reply)
            await user.client.flush()
    async with asyncio.timeout(10):
        while not wanted <= set(await subjects(stream)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    return await subjects(stream)


async def test_an_acknowledgement_cannot_be_turned_into_an_event(stack: Stack, stream: User) -> None:
    sent = "penstock.cp.external.lab.scanned"
    assert set(await _acknowledged_to(stack, stream, external_permissions("lab", "cp"), {sent})) == {sent}


async def test_without_an_account_of_its_own_a_publisher_could_forge_events(stack: Stack, stream: User) -> None:
    """The negative control of the test before: the same permissions, inside the platform's account."""
    inside = dataclasses.replace(external_permissions("lab", "cp"), external=False)
    assert SPOOFED[0] in await _acknowledged_to(stack, stream, inside, {SPOOFED[0]})


async def test_a_service_publishes_its_own_events_and_consumes_all(stack: Stack, stream: User) -> None:
    async with connected(stack, "training", service_permissions("training")) as user:
        jetstream = user.client.jetstream()
        await jetstream.publish("penstock.cp.training.run.r1.succeeded", b"1")
        await stream.client.jetstream().publish("penstock.cq.tuning.study.s1.started", b"2")
        consumer = await jetstream.pull_subscribe("penstock.>", durable="training-test", stream=STREAM)
        messages = await consumer.fetch(2, timeout=2)
        assert sorted(message.data for message in messages) == [b"1", b"2"]
        for message in messages:
            await message.ack_sync()
        assert not await user.refused()


@pytest.mark.parametrize("subject", ["penstock.cp.tuning.study.s1.started", "penstock.cp.external.lab.a", "$SYS.REQ.X"])
async def test_a_service_may_not_speak_for_another(stack: Stack, stream: User, subject: str) -> None:
    async with connected(stack, "training", service_permissions("training")) as user:
        await user.client.publish(subject, b"{}")
        assert await user.refused()
    assert await subjects(stream) == []


async def test_a_service_can_be_let_publish_more(stack: Stack, stream: User) -> None:
    more = service_permissions("pipeline", publish=("penstock.*.external.>",))
    async with connected(stack, "pipeline", more) as user:
        await user.client.jetstream().publish("penstock.cp.external.lab.scanned", b"{}")
    assert await subjects(stream) == ["penstock.cp.external.lab.scanned"]


async def test_a_service_does_not_hear_the_inbox_of_another(stack: Stack) -> None:
    async with connected(stack, "training", service_permissions("training")) as user:
        await user.client.subscribe("_INBOX_tuning.>")
        assert await user.refused()


async def test_nobody_connects_without_credentials(stack: Stack) -> None:
    with pytest.raises(nats.errors.Error):
        await nats.connect(stack.nats_url, allow_reconnect=False, error_cb=_quiet)


async def test_nobody_connects_with_credentials_of_another_platform(stack: Stack, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.creds"
    stranger.write_text(mint(create_authority(tmp_path / "authority"), "all", Permissions((">",), (">",))))
    with pytest.raises(nats.errors.Error):
        await nats.connect(stack.nats_url, user_credentials=str(stranger), allow_reconnect=False, error_cb=_quiet)


async def test_an_expired_user_is_thrown_out(stack: Stack) -> None:
    async with connected(stack, "brief", service_permissions("brief"), ttl=2) as user:
        await until(lambda: not user.client.is_connected)


def test_keys_are_made_once_and_kept_to_their_owner(tmp_path: Path) -> None:
    first = create_authority(tmp_path / "authority")
    assert create_authority(tmp_path / "authority") == first
    assert [path.name for path in (tmp_path / "authority").iterdir()] == ["authority.json"]
    assert stat.S_IMODE((tmp_path / "authority" / "authority.json").stat().st_mode) == 0o600
    assert first.account_seed not in repr(first)


def test_credential_files_are_kept_to_their_owner(stack: Stack) -> None:
    path = stack.service_credentials("training")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_user_without_subjects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument):
        mint_user(create_authority(tmp_path / "authority"), "nobody", [], ["_INBOX_nobody.>"])


async def _quiet(_: Exception) -> None:
    return None
