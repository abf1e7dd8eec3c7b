"""A serving service per test, over the session's database, with an Envoy and a home of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.backing.triton_environment import TritonEnvironment
from tests.support.serving_platform import ServingPlatform


@pytest.fixture
async def platform(
    home: Path, mongodb_uri: str, triton_environment: TritonEnvironment
) -> AsyncIterator[ServingPlatform]:
    running = await ServingPlatform.open(home, mongodb_uri, triton_environment)
    try:
        yield running
    finally:
        await running.close()
