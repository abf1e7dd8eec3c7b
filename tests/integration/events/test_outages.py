"""NATS or the database killed with SIGKILL in the middle of things, and started again on the same data."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.backing.mongodb import MongoServer
from penstock.backing.nats import NatsServer
from penstock.backing.process import ManagedProcess
from penstock.errors import PenstockError
from penstock.events import Bus
from penstock.events.credentials import Permissions
from penstock.store import Database
from tests.integration.events.world import (
    Journal,
    Run,
    consumer_of,
    new_project,
    queued,
    relay_of,
    running,
    runs_in,
    step,
    until,
)

STEPS = 40


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[NatsServer, MongoServer]]:
    """Servers of this test's own, to be killed."""
    nats, mongodb = NatsServer(tmp_path / "nats"), MongoServer(tmp_path / "mongodb")
    try:
        await asyncio.gather(nats.start(attached=True), mongodb.start(attached=True))
        yield nats, mongodb
    finally:
        for server in (nats, mongodb):
            if server.process is not None:
                server.process.stop(2)


async def crash(server: NatsServer | MongoServer, seconds: float) -> None:
    """Kill the server, leave it dead for a while, start it again."""
    assert isinstance(server.process, ManagedProcess)
    server.process.kill()
    await asyncio.sleep(seconds)
    await server.start(attached=True)


@pytest.mark.parametrize("victim", ["nats", "mongodb"])
async def test_a_killed_server_loses_no_command_and_no_event(
    servers: tuple[NatsServer, MongoServer], victim: str
) -> None:
    nats, mongodb = servers
    bus = await Bus.connect(nats.url, nats.credentials("t", Permissions((">",), (">",))), "t")
    database = Database.connect(mongodb.uri, "penstock_outage")
    project, runs = new_project(), await runs_in(database)
    journal = Journal(database, project)
    names = [f"projects/{project}/runs/{id}" for id in ("a", "b", "c")]

    async def command(name: str) -> None:
        for n in range(STEPS):
            while True:  # as a client does: again, under the same request id
                try:
                    if n == 0:
                        await runs.create(name, Run(project), [queued(name)], request_id="0")
                    else:
                        await step(runs, name, str(n))
                    break
                except PenstockError:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(0.01)

    async with running(relay_of(bus, database, runs).run(), consumer_of(bus, database, journal).run()):
        commands = asyncio.gather(*map(command, names))
        await journal.count(20)
        await crash(nats if victim == "nats" else mongodb, 0.7)
        await commands
        applied = journal.rows

        async def complete() -> bool:
            return len(await applied.find()) == len(names) * STEPS and not await runs.pending()

        await until(complete, 40)
    for name in names:
        stored = await runs.get(name)
        assert (stored.value.steps, stored.sequence) == (STEPS - 1, STEPS)
        told = journal.sequences(name)
        assert sorted(set(told)) == list(range(1, STEPS + 1))
        # Only what was in work when a server died may be told again, never what is before it.
        assert all(later >= earlier - 32 for earlier, later in itertools.pairwise(told))
    await bus.close()
    await database.close()
