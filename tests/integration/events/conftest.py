"""A NATS server of its own for these tests: they kill it, and look at whole streams."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.backing.nats import NatsServer
from penstock.events import Bus, consumer, external
from penstock.events.credentials import Permissions
from penstock.store import Database
from tests.conftest import run_once


@dataclass(frozen=True)
class Nats:
    """A running server and credentials that may do anything."""

    server: NatsServer
    credentials: Path

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture(autouse=True)
def quick_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What operators decide about dead letters is looked at ten times as often."""
    monkeypatch.setattr(consumer, "_DECISIONS", 0.3)
    monkeypatch.setattr(external, "_DECISIONS", 0.3)


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        run_once(server.start(attached=True))
        yield Nats(server, server.credentials("events", Permissions((">",), (">",))))
    finally:
        if server.process is not None:
            server.process.stop(2)


@pytest.fixture
async def bus(nats: Nats) -> AsyncIterator[Bus]:
    connected = await Bus.connect(nats.url, nats.credentials, "events")
    yield connected
    await connected.close()


@pytest.fixture
async def database(mongodb_uri: str) -> AsyncIterator[Database]:
    connected = Database.connect(mongodb_uri, f"penstock_test_{secrets.token_hex(4)}")
    yield connected
    await connected.drop()
    await connected.close()
