"""NATS and MongoDB through kill -9, adoption and stale homes: what was acknowledged is still there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pymongo
import pytest
from pymongo.write_concern import WriteConcern

from penstock.backing.mongodb import MongoServer
from penstock.backing.ports import free_port
from penstock.backing.records import record_path
from penstock.backing.stack import Stack
from penstock.backing.supervisor import Backoff, Supervisor
from penstock.errors import FailedPrecondition, Unavailable
from penstock.events.credentials import Permissions
from tests.integration.backing.waiting import until

ANYTHING = Permissions((">",), (">",))
DURABLE = WriteConcern("majority", j=True)


@pytest.fixture
async def own(home: Path) -> AsyncIterator[Stack]:
    """A stack that this test may kill, in a home with a trying path."""
    stack = Stack(home / 'it\'s "home"')
    await stack.start(attached=True)
    yield stack
    await stack.stop(grace=2)


def _listening_elsewhere(pid: int) -> list[str]:
    """Lines of the socket tables for what the process listens on beyond 127.0.0.1."""
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(entry))
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()]
    listening = [line for line in lines if line.split()[3] == "0A" and line.split()[9] in inodes]
    assert listening
    return [line for line in listening if not line.split()[1].startswith("0100007F:")]


def _pids(stack: Stack) -> tuple[int, int]:
    assert stack.nats.process is not None
    assert stack.mongodb.process is not None
    return stack.nats.process.identity.pid, stack.mongodb.process.identity.pid


def _replaced(stack: Stack, killed: tuple[int, int]) -> bool:
    return not set(killed) & set(_pids(stack))


async def _publish(stack: Stack, text: str) -> None:
    client = await nats.connect(stack.nats_url, user_credentials=str(stack.credentials("t", ANYTHING)))
    jetstream = client.jetstream()
    await jetstream.add_stream(name="KEPT", subjects=["kept.>"])
    await jetstream.publish("kept.a", text.encode())
    await client.close()


async def _published(stack: Stack) -> list[str]:
    client = await nats.connect(stack.nats_url, user_credentials=str(stack.credentials("t", ANYTHING)))
    jetstream = client.jetstream()
    count = (await jetstream.stream_info("KEPT")).state.messages
    found = [(await jetstream.get_msg("KEPT", number + 1)).data or b"" for number in range(count)]
    await client.close()
    return [data.decode() for data in found]


def _insert(stack: Stack, text: str) -> None:
    with pymongo.MongoClient[dict[str, str]](stack.mongodb_uri, retryWrites=False) as client:
        client.get_database("kept", write_concern=DURABLE).things.insert_one({"_id": text})


def _inserted(stack: Stack) -> list[str]:
    with pymongo.MongoClient[dict[str, str]](stack.mongodb_uri) as client:
        return sorted(document["_id"] for document in client["kept"].things.find())


async def test_a_supervised_stack_killed_comes_back_on_its_ports_with_its_data(own: Stack) -> None:
    supervisor = Supervisor(Backoff(first=0.02))
    own.supervise(supervisor)
    before = own.nats_url, own.mongodb_uri
    for round_ in range(3):
        await _publish(own, str(round_))
        _insert(own, str(round_))
        killed = _pids(own)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await until(functools.partial(_replaced, own, killed))
        await own.start(attached=True)
    assert (own.nats_url, own.mongodb_uri) == before
    assert await _published(own) == ["0", "1", "2"]
    assert _inserted(own) == ["0", "1", "2"]
    await supervisor.close()


async def test_a_new_parent_adopts_what_runs(own: Stack) -> None:
    heir = Stack(own.home)
    await heir.start()
    assert _pids(heir) == _pids(own)
    assert (heir.nats_url, heir.mongodb_uri) == (own.nats_url, own.mongodb_uri)
    assert heir.nats.authority == own.nats.authority


async def test_two_parents_that_start_at_once_share_one_stack(home: Path) -> None:
    parent = f"""
        import asyncio
        from pathlib import Path
        from penstock.backing.stack import Stack
        stack = Stack(Path({str(home)!r}))
        asyncio.run(stack.start())
        print(stack.nats.process.identity.pid, stack.mongodb.process.identity.pid)
    """
    command = [sys.executable, "-c", textwrap.dedent(parent)]
    parents = [await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(3)]
    answers = {(await parent.communicate())[0] for parent in parents}
    heir = Stack(home)
    await heir.start()
    assert answers == {b"%d %d\n" % _pids(heir)}
    await heir.stop(grace=2)


async def test_a_home_of_another_boot_starts_fresh_on_the_same_data(home: Path) -> None:
    first = Stack(home)
    await first.start(attached=True)
    await _publish(first, "kept")
    _insert(first, "kept")
    await first.stop(grace=2)
    for name in ("nats", "mongodb"):
        data = json.loads(record_path(home, name).read_text())
        record_path(home, name).write_text(json.dumps({**data, "pid": os.getpid(), "boot_id": "before"}))
    second = Stack(home)
    await second.start(attached=True)
    assert await _published(second) == ["kept"]
    assert _inserted(second) == ["kept"]
    assert (second.nats_url, second.mongodb_uri) == (first.nats_url, first.mongodb_uri)
    await second.stop(grace=2)


async def test_a_wanted_port_in_use_is_a_clear_error(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port := free_port()))
        taken.listen()
        with pytest.raises(FailedPrecondition, match=rf"port {port}, where nats must listen, is in use"):
            await Stack(home, nats_port=port).start(attached=True)
        stack = Stack(home)
        await stack.start(attached=True)
        await stack.stop(grace=2)


async def test_a_database_of_somebody_else_is_used_and_left_alone(own: Stack, tmp_path: Path) -> None:
    guest = Stack(tmp_path / "guest", mongodb_uri=own.mongodb_uri)
    await guest.start(attached=True)
    assert guest.mongodb_uri == own.mongodb_uri
    await guest.stop(grace=2)
    _insert(own, "still here")


async def test_everything_listens_on_loopback_only(own: Stack) -> None:
    for pid in _pids(own):
        assert _listening_elsewhere(pid) == []


async def test_a_stop_takes_no_longer_than_it_must(own: Stack) -> None:
    began = time.monotonic()
    await own.stop()
    assert time.monotonic() - began < 5
    assert own.nats.process is not None
    assert not own.nats.process.alive()


async def test_a_damaged_database_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)  # nx-27017, whatever is installed
    server = MongoServer(home)
    process = await server.start(attached=True)
    assert process is not None
    with pymongo.MongoClient[dict[str, str]](server.uri) as client:
        client["penstock_training"].runs.insert_one({"_id": "1"})
    process.stop()
    file = home / "mongodb" / "nx-27017" / "penstock_training.db"
    file.write_bytes(b"\xff" * 100 + file.read_bytes()[100:])
    with pytest.raises(Unavailable, match=f"penstock_training is damaged: {file}"):
        await server.start(attached=True)
