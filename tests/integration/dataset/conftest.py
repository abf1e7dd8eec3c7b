"""A dataset service per test, over the session's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.dataset_platform import Client, DatasetPlatform


@pytest.fixture
async def platform(tmp_path: Path, mongodb_uri: str) -> AsyncIterator[DatasetPlatform]:
    running = DatasetPlatform.open(tmp_path, mongodb_uri)
    try:
        yield running
    finally:
        await running.close()


@pytest.fixture
async def client(platform: DatasetPlatform) -> Client:
    await platform.start()
    return platform.client()
