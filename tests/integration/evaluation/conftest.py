"""One platform for the module: the warm interpreters are shared, as in a home."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.evaluation_platform import PROJECT, ROWS, EvaluationPlatform, train_model


@dataclass(frozen=True)
class Given:
    """Two models, a good one and a bad one, and data."""

    good: str
    bad: str
    data: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EvaluationPlatform]:
    opened = await EvaluationPlatform.open(tmp_path_factory.mktemp("evaluation"), mongodb_uri)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def given(platform: EvaluationPlatform) -> Given:
    good = platform.training.add(PROJECT, "sizes", train_model(platform.root / "good"))
    bad = platform.training.add(PROJECT, "sizes", train_model(platform.root / "bad", wrong=12))
    return Given(good, bad, platform.datasets.add(PROJECT, "sizes", ROWS, label="kind"))
