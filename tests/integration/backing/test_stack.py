"""The stack as every other test uses it."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import nats
import pymongo

from penstock.backing.stack import Stack


async def test_a_message_published_to_jetstream_is_stored(nats_url: str, nats_credentials: Path) -> None:
    client = await nats.connect(nats_url, user_credentials=str(nats_credentials))
    try:
        stream = client.jetstream()
        await stream.add_stream(name="test-stack", subjects=["test-stack.>"])
        ack = await stream.publish("test-stack.a", b"x" * (4 * 2**20))
        assert ack.seq == 1
        await stream.delete_stream("test-stack")
    finally:
        await client.close()


async def test_jetstream_syncs_every_write(stack: Stack) -> None:
    assert stack.nats.process is not None
    url = f"http://127.0.0.1:{stack.nats.process.facts['monitor_port']}/jsz?config=true"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert (await answer.json())["config"]["sync_always"] is True


def test_two_databases_keep_collections_of_one_name_apart(mongodb_uri: str) -> None:
    with pymongo.MongoClient[dict[str, str]](mongodb_uri) as client:
        for name in ("stack_a", "stack_b"):
            client[name].things.insert_one({"_id": "1", "of": name})
        assert [client[name].things.find_one({"_id": "1"}) for name in ("stack_a", "stack_b")] == [
            {"_id": "1", "of": "stack_a"},
            {"_id": "1", "of": "stack_b"},
        ]
        for name in ("stack_a", "stack_b"):
            client.drop_database(name)
