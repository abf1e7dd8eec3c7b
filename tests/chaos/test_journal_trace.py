"""Promise 1 as the kernel sees it: an acknowledged write was synced. A kill alone would not show it (page cache).

Needs `strace` and the right to trace a process of one's own.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.backing.mongodb import MongoServer
from penstock.store import Aggregates, Database, Rows
from penstock.store import database as database_module

WRITES = 20
BATCH = 50


@dataclass(frozen=True)
class Thing:
    number: int


@dataclass(frozen=True)
class Traced:
    """What the database did on behalf of one client: syncs, and answers that went out before what they answer was."""

    syncs: int
    early: int


async def _traced(server: MongoServer, trace: Path, name: str, work: Callable[[Database], Awaitable[None]]) -> Traced:
    database = Database.connect(server.uri, name)
    await Aggregates(database, "things", Thing).prepare()
    await Rows(database, "rows").prepare()
    assert server.process is not None
    strace = shutil.which("strace")
    assert strace, "install strace: this test looks at system calls"
    calls = ["-f", "-y", "-s", "400", "-e", "trace=fsync,fdatasync,pwrite64,sendto"]
    tracer = await asyncio.create_subprocess_exec(
        strace, *calls, "-o", str(trace), "-p", str(server.process.identity.pid), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert tracer.stderr is not None
        assert b"attached" in await tracer.stderr.readline()
        await work(database)
    finally:
        tracer.terminate()
        await tracer.wait()
        await database.close()
    return _read(await asyncio.to_thread(trace.read_text, errors="replace"))


def _read(trace: str) -> Traced:
    syncs, early, unsynced = 0, 0, False
    for line in trace.splitlines():
        if "pwrite64(" in line and "-wal>" in line:
            unsynced = True
        elif "sync" in line and line.endswith("= 0"):  # whole, or the end of one that was interrupted
            syncs, unsynced = syncs + 1, False
        elif "sendto(" in line and "isWritablePrimary" not in line:  # the driver's heartbeats write nothing
            early += unsynced
    return Traced(syncs, early)


async def _one_at_a_time(database: Database) -> None:
    things = Aggregates(database, "things", Thing)
    for number in range(WRITES):
        await things.create(f"t{number}", Thing(number))


async def _together(database: Database) -> None:
    assert await Rows(database, "rows").insert([{"_id": f"r{n}", "n": n} for n in range(BATCH)]) == BATCH


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[MongoServer]:
    started = MongoServer(tmp_path / "home")
    await started.start(attached=True)
    yield started
    assert started.process is not None
    started.process.stop(2)


async def test_every_acknowledged_write_is_synced(
    server: MongoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = await _traced(server, tmp_path / "single", "penstock_single", _one_at_a_time)
    assert single.syncs >= WRITES and single.early == 0
    many = await _traced(server, tmp_path / "many", "penstock_many", _together)
    assert 1 <= many.syncs < BATCH and many.early == 0  # together: not once a document
    # Without j:true the same writes are acknowledged before anything is synced.
    monkeypatch.setitem(database_module._OPTIONS, "journal", False)
    loose = await _traced(server, tmp_path / "loose", "penstock_loose", _one_at_a_time)
    assert loose.syncs < WRITES and loose.early > 0
    assert (await _traced(server, tmp_path / "batch", "penstock_batch", _together)).early > 0
