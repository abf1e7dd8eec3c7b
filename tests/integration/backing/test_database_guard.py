"""The embedded database answers its own user and nobody else on the machine."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.backing import mongodb, nx_server
from penstock.backing.mongodb import MongoServer

# Connects, says hello as `how` tells, and prints how many bytes came back.
CALLER = """
import encodings.idna, os, socket, sys
uid, port, how, hello = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4])
if uid != os.getuid():
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
peer = socket.create_connection(("127.0.0.1", port), 5)
peer.sendall(hello)
if how == "gone":
    os._exit(0)  # what it sent is there, its owner no more
try:
    print(len(peer.recv(4096)))
except ConnectionError:
    print(0)
"""
STRANGER = 61_500


def say(port: int, user: int, how: str = "stays", message: bytes = mongodb._HELLO) -> int:
    packed = bytes([21 + len(message) & 0xFF, 0, 0, 0]) + b"\1\0\0\0" + bytes(4) + b"\xdd\7\0\0" + bytes(5) + message
    command = [sys.executable, "-I", "-c", CALLER, str(user), str(port), how, packed.hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, cwd="/")
    return int(done.stdout or 0)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[MongoServer]:
    made = MongoServer(tmp_path)
    await made.start(attached=True)
    yield made
    assert made.process is not None
    made.process.stop(2)


def port_of(server: MongoServer) -> int:
    assert server.process is not None
    return int(server.process.facts["port"])


async def test_its_own_user_is_answered(server: MongoServer) -> None:
    assert say(port_of(server), os.getuid()) > 16


@pytest.mark.parametrize("how", ["stays", "gone"])
async def test_another_user_is_not(server: MongoServer, how: str) -> None:
    if os.geteuid() != 0:  # only root can be somebody else, so here the table is asked about instead
        assert nx_server.owner_of(("127.0.0.1", 1), ("127.0.0.1", 2), "\n") is None
        return
    for _ in range(20):
        assert say(port_of(server), STRANGER, how) == 0
    assert server.process is not None
    deadline = time.monotonic() + 5
    while server.process.log_tail(50).count("refused a connection") < 20:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert say(port_of(server), os.getuid()) > 16  # and goes on answering its own


async def test_without_the_guard_anybody_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: nx-27017 as it comes."""
    bare = tmp_path / "bare.py"
    bare.write_text("from nx_27017 import nx_27017\nnx_27017.main()\n")
    monkeypatch.setattr(nx_server, "__file__", str(bare))
    server = MongoServer(tmp_path)
    await server.start(attached=True)
    assert server.process is not None
    user = STRANGER if os.geteuid() == 0 else os.geteuid()
    try:
        assert say(port_of(server), user) > 16
    finally:
        server.process.stop(2)


def test_a_socket_that_was_closed_has_no_owner() -> None:
    """The kernel shows it as root's: whoever sent something and left must not pass for root."""
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    line = "   0: 0100007F:1F90 0100007F:6989 {state} 00000000:00000000 00:00000000 00000000 {user:5} 0 {inode} 1\n"
    peer, own = ("127.0.0.1", 0x1F90), ("127.0.0.1", 0x6989)
    for state, user, inode, owner in (("01", 7, 99, 7), ("04", 0, 0, None), ("01", 0, 0, None), ("06", 0, 9, None)):
        assert nx_server.owner_of(peer, own, head + line.format(state=state, user=user, inode=inode)) == owner
    assert nx_server.owner_of(own, peer, head + line.format(state="01", user=7, inode=9)) is None


def test_the_table_names_the_owner_of_a_real_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        ours, _ = listener.accept()
        table = Path("/proc/net/tcp").read_text()
        assert nx_server.owner_of(peer.getsockname(), ours.getsockname(), table) == os.geteuid()
        ours.close()
