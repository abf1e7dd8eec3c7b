"""A tuning service per test, with the training service under it, over the session's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.tuning import reconciler
from tests.support.training_platform import PROJECT, TrainingPlatform
from tests.support.tuning_platform import TuningPlatform


@pytest.fixture
async def platform(tmp_path: Path, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TuningPlatform]:
    monkeypatch.setattr(reconciler, "ASK_SECONDS", 0.1)  # no events reach it here
    training = await TrainingPlatform.open(tmp_path, mongodb_uri)
    running = TuningPlatform(training, mongodb_uri)
    try:
        await running.start()
        yield running
    finally:
        await running.close()
        await training.close()


@pytest.fixture
def version(platform: TuningPlatform) -> str:
    """A small dataset version."""
    rows = [{"id": f"k{n}", "x": float(n), "kind": "big" if n > 20 else "small"} for n in range(40)]
    return platform.training.datasets.add(PROJECT, "shapes", rows, label="kind")
