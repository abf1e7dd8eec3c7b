"""A serving service over the session's database, with an Envoy and a home of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from penstock.backing.triton_environment import TritonEnvironment
from services.serving import instances
from tests.support.serving_platform import ServingPlatform


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drained model server takes some seconds to end by itself; nobody waits for that here."""
    monkeypatch.setattr(instances, "STOP_SECONDS", 0.0)


@pytest.fixture
async def platform(
    home: Path, mongodb_uri: str, triton_environment: TritonEnvironment
) -> AsyncIterator[ServingPlatform]:
    """For a test that kills things; it starts instances of the service by itself."""
    running = await ServingPlatform.open(home, mongodb_uri, triton_environment)
    try:
        yield running
    finally:
        await running.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(
    tmp_path_factory: pytest.TempPathFactory, mongodb_uri: str, triton_environment: TritonEnvironment
) -> AsyncIterator[ServingPlatform]:
    """One for the tests of a file, which use endpoints of their own; an instance runs."""
    home = tmp_path_factory.mktemp("serving")
    running = await ServingPlatform.open(home, mongodb_uri, triton_environment)
    try:
        await running.start()
        yield running
    finally:
        await running.close()
