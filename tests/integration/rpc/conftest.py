"""A running gRPC server per test: it starts in milliseconds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.rpc import echo_service
from tests.integration.rpc.echo_service import Platform


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    running = await echo_service.start()
    yield running
    await running.close()
