"""The pipeline service's parts over a database of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.pipeline_platform import Instance, PipelinePlatform


@pytest.fixture
async def platform(mongodb_uri: str) -> AsyncIterator[PipelinePlatform]:
    opened = await PipelinePlatform.open(mongodb_uri)
    yield opened
    await opened.close()


@pytest.fixture
def instance(platform: PipelinePlatform) -> Instance:
    return platform.instance()
