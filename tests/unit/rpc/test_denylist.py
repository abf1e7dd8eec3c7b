"""The list of revoked tokens in a process that stood still: its list is old, though nobody failed to tell it."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock.rpc.caller import Caller
from penstock.rpc.denylist import Denylist, OpenCall

PAUSE = 1.0


async def stood_still(revoked: frozenset[str]) -> OpenCall:
    """An open call of a process that stood still for longer than the list may be old."""
    told: frozenset[str] = frozenset()

    async def fetch() -> frozenset[str]:
        await asyncio.sleep(0.02)
        return told

    denylist = Denylist(fetch, max_age=PAUSE / 2, poll=0.1)
    await denylist.refresh()
    running = asyncio.create_task(denylist.run())
    call = OpenCall(Caller("mo", "vision", "viewer", "t1"), asyncio.create_task(asyncio.sleep(60)))
    with denylist.watching(call):
        await asyncio.sleep(0.05)
        told = revoked
        time.sleep(PAUSE)  # noqa: ASYNC251 - as if the machine had slept
        await asyncio.sleep(0.25)
    running.cancel()
    call.task.cancel()
    await asyncio.gather(running, call.task, return_exceptions=True)
    return call


async def test_streams_go_on() -> None:
    assert (await stood_still(frozenset())).ended is None


async def test_a_token_that_was_revoked_meanwhile_ends_its_streams() -> None:
    assert "revoked" in str((await stood_still(frozenset({"t1"}))).ended)


async def test_without_reading_first_streams_would_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the first test."""
    reads = Denylist._try_to_read

    async def only_in_turn(self: Denylist, within: float) -> None:
        if within == self.max_age:
            await reads(self, within)

    monkeypatch.setattr(Denylist, "_try_to_read", only_in_turn)
    assert "cannot be told" in str((await stood_still(frozenset())).ended)
