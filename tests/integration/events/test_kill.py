"""kill -9 of the process that commands, relays and consumes, at single operations."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from penstock.events import Bus
from penstock.store import Database
from tests.integration.events.conftest import Nats
from tests.integration.events.faults import Fault
from tests.integration.events.story import Record, live, verify
from tests.integration.events.world import new_project

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("k", "fault"),
    [(4, Fault.KILL_AFTER), (7, Fault.KILL_BEFORE), (11, Fault.KILL_AFTER), (15, Fault.KILL_BEFORE)],
)
async def test_a_killed_process_loses_nothing_it_acknowledged(
    nats: Nats, bus: Bus, database: Database, mongodb_uri: str, k: int, fault: Fault
) -> None:
    record = Record(new_project())
    arguments = [mongodb_uri, database.name, nats.url, str(nats.credentials), record.project, str(k), fault.value]
    victim = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.events.victim",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    record.acknowledged.update(printed.decode().split())
    # The client repeats only what was not acknowledged: were an acknowledged command lost, it would be missing.
    await live(bus, database, record, record.acknowledged.add)
    assert await verify(database, record) == []
