"""Publishes one event with nats-py: what docs/asyncapi.yaml says of the channel `external`, and nothing else.

python publish_with_nats.py URL CREDENTIALS PROJECT PUBLISHER
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid

import nats


async def publish(url: str, credentials: str, project: str, publisher: str) -> None:
    """Publish, and wait for the acknowledgement that the event is stored."""
    client = await nats.connect(
        url,
        user_credentials=credentials,
        # Replies come to a subject of this user's own; with another prefix the server refuses to listen.
        inbox_prefix=f"_INBOX_{project}_{publisher}".encode(),
    )
    headers = {
        "ce-specversion": "1.0",
        "ce-id": str(uuid.uuid4()),  # keep it when you publish again after a timeout
        "ce-source": "//tasting-room/table-1",
        "ce-type": "com.example.tasting.done",
        "content-type": "application/json",
    }
    body = json.dumps({"dataset": "teas", "tasted": 12}).encode()
    ack = await client.jetstream().publish(f"penstock.{project}.external.tasting-room.done", body, headers=headers)
    print(f"stored as {ack.stream} {ack.seq}")
    await client.close()


if __name__ == "__main__":
    asyncio.run(publish(*sys.argv[1:5]))
