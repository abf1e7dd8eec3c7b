"""A process that lives the story and is killed at an operation; it prints each acknowledged request.

`victim.py MONGODB DATABASE NATS CREDENTIALS PROJECT K FAULT`
"""

from __future__ import annotations

import asyncio
import sys

from penstock.events import Bus
from penstock.store import Database
from tests.integration.events.faults import Fault, Injector, injected
from tests.integration.events.story import Record, live


async def main(uri: str, name: str, nats_url: str, credentials: str, project: str, k: str, fault: str) -> None:
    """Until the end of the story, or of this process."""
    database = Database.connect(uri, name)
    bus = await Bus.connect(nats_url, credentials, "events")
    record = Record(project)

    def acknowledge(request: str) -> None:
        record.acknowledged.add(request)
        print(request, flush=True)

    with injected(Injector(int(k), Fault(fault))):
        await live(bus, database, record, acknowledge)
    await bus.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
