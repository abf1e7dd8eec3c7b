"""The conformance suite's server: the session's own; PENSTOCK_TEST_STORE names another.

`mongodb://…` (also PENSTOCK_TEST_MONGODB_URI) is used as it is; `secantus` is the installed SecantusDB; anything else
is the path of a `secantusd-rs`. Both are started here: separate processes, never imported.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from penstock.store import Database


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command(server: str, data: Path, port: int) -> list[str]:
    if server == "secantus":
        found = shutil.which("secantusd-py")
        assert found, "PENSTOCK_TEST_STORE=secantus needs SecantusDB installed and on PATH"
        return [found, "--host", "127.0.0.1", "--port", str(port), "--storage-path", str(data)]
    return [server, "--port", str(port), "--storage-path", str(data), "--sync-on-commit"]


def _await_answer(uri: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    client: MongoClient[dict[str, Any]] = MongoClient(uri, serverSelectionTimeoutMS=500)
    with client:
        while True:
            try:
                client.admin.command("ping")
                return
            except PyMongoError:
                assert process.poll() is None, "the store server ended at its start"
                assert time.monotonic() < deadline, "the store server does not answer"


@pytest.fixture(scope="session")
def store_uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = os.environ.get("PENSTOCK_TEST_STORE") or os.environ.get("PENSTOCK_TEST_MONGODB_URI") or ""
    if not server:
        yield request.getfixturevalue("mongodb_uri")
        return
    if server.startswith("mongodb"):
        yield server
        return
    port, data = _free_port(), tmp_path_factory.mktemp("store-server")
    process = subprocess.Popen(_command(server, data, port), cwd=data, stdout=subprocess.DEVNULL)
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    try:
        _await_answer(uri, process)
        yield uri
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def frees_unique_values() -> bool:
    """secantusd-rs 0.5.3 never gives a value of a unique index free, whatever happens to its document."""
    return not os.environ.get("PENSTOCK_TEST_STORE", "").endswith("secantusd-rs")


@pytest.fixture
async def database(store_uri: str) -> AsyncIterator[Database]:
    """An empty database of its own for each test."""
    connected = Database.connect(store_uri, f"penstock_test_{secrets.token_hex(4)}")
    yield connected
    await connected.drop()
    await connected.close()
