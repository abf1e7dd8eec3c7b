"""A training service per test, over the session's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.training_platform import PROJECT, TrainingPlatform


@pytest.fixture
async def platform(tmp_path: Path, mongodb_uri: str) -> AsyncIterator[TrainingPlatform]:
    running = await TrainingPlatform.open(tmp_path, mongodb_uri)
    try:
        yield running
    finally:
        await running.close()


@pytest.fixture
def version(platform: TrainingPlatform) -> str:
    """A dataset version of 60 rows, two classes that a line divides."""
    rows = [
        {"id": f"k{n}", "x": float(n % 10), "y": float(n % 7), "kind": "big" if n % 10 > 4 else "small"}
        for n in range(60)
    ]
    return platform.datasets.add(PROJECT, "shapes", rows, label="kind")
