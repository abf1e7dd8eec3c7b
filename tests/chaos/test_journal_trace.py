"""Promise 1 as the kernel sees it: an acknowledged write was synced. A kill alone would not show it (page cache).

Needs `strace` and the right to trace a process of one's own.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.backing.mongodb import MongoServer
from penstock.store import Aggregates, Database
from penstock.store import database as database_module

WRITES = 20


@dataclass(frozen=True)
class Thing:
    number: int


async def _syncs(server: MongoServer, trace: Path, name: str) -> int:
    """How often the server syncs a file during some acknowledged writes, one at a time."""
    database = Database.connect(server.uri, name)
    things = Aggregates(database, "things", Thing)
    await things.prepare()
    assert server.process is not None
    strace = shutil.which("strace")
    assert strace, "install strace: this test looks at system calls"
    pid = str(server.process.identity.pid)
    tracer = await asyncio.create_subprocess_exec(
        strace, "-f", "-e", "trace=fsync,fdatasync", "-o", str(trace), "-p", pid, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert tracer.stderr is not None
        assert b"attached" in await tracer.stderr.readline()
        for number in range(WRITES):
            await things.create(f"t{number}", Thing(number))
    finally:
        tracer.terminate()
        await tracer.wait()
        await database.close()
    return _count(trace)


def _count(trace: Path) -> int:
    return sum("sync(" in line and "= 0" in line for line in trace.read_text().splitlines())


async def test_every_acknowledged_write_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MongoServer(tmp_path / "home")
    await server.start(attached=True)
    try:
        assert await _syncs(server, tmp_path / "with", "penstock_with") >= WRITES
        # Without j:true the same writes are acknowledged before anything is synced.
        monkeypatch.setitem(database_module._OPTIONS, "journal", False)
        assert await _syncs(server, tmp_path / "without", "penstock_without") < WRITES
    finally:
        assert server.process is not None
        server.process.stop(2)
