"""Real servers for the whole session: free ports, a folder of their own, gone at the end (or with this process)."""

from __future__ import annotations

import tests.support.forks  # noqa: F401

# isort: split
import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from penstock.backing.stack import Stack
from penstock.backing.triton_environment import TritonEnvironment, setup_environment
from penstock.events.credentials import Authority, Permissions

T = TypeVar("T")


def run_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, leaving pytest-asyncio's loops alone."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home directory."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """NATS and MongoDB, up for the session. Tests share them: use databases, projects and streams of your own."""
    servers = Stack(tmp_path_factory.mktemp("stack"))
    try:
        run_once(servers.start(attached=True))
        yield servers
    finally:
        run_once(servers.stop(grace=2))


@pytest.fixture(scope="session")
def mongodb_uri(stack: Stack) -> str:
    """What a MongoDB driver connects to."""
    return stack.mongodb_uri


@pytest.fixture(scope="session")
def nats_url(stack: Stack) -> str:
    """Where NATS listens; it takes no one without credentials."""
    return stack.nats_url


@pytest.fixture(scope="session")
def nats_authority(stack: Stack) -> Authority:
    """What mints NATS users."""
    return stack.nats.authority


@pytest.fixture(scope="session")
def nats_credentials(stack: Stack) -> Path:
    """Credentials of a user that may do anything with events, inboxes of any prefix included."""
    return stack.credentials("tests", Permissions((">",), (">",)))


@pytest.fixture(scope="session")
def triton_environment() -> TritonEnvironment:
    """Triton's environment, shared with the user's platforms; made if `make setup` has not."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return setup_environment(Path(data_home) / "penstock")
