"""One platform for the module: the warm interpreters are shared, as in a home."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from penstock.jobs.local import LocalExecutor
from penstock.jobs.spec import JobSpec
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


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


async def folders_gone(platform: EvaluationPlatform) -> None:
    """Wait until the jobs' folders are removed, which follows the write that ends an evaluation."""
    async with asyncio.timeout(10):
        while await asyncio.to_thread(lambda: list((platform.root / "jobs").glob("evaluation.*"))):  # noqa: ASYNC110 (a folder tells nobody)
            await asyncio.sleep(0.02)


def losing(platform: EvaluationPlatform, lost: int) -> Losing:
    """The platform's executor, but its first attempts die."""
    return Losing(platform.root / "jobs", (platform.root / "objects").as_uri(), lost)


class Losing(LocalExecutor):
    """Has the first attempts die right after they began."""

    def __init__(self, root: Path, url: str, lost: int) -> None:
        super().__init__(root, url, idle=20)
        self.lost = lost

    async def start(self, spec: JobSpec) -> None:
        if spec.attempt > self.lost:
            await super().start(spec)
        else:
            await super().start(replace(spec, code=None, command=("sleep", "60")))  # not over before it dies
            record = self._root / spec.job / str(spec.attempt) / "start.json"
            while not record.exists() or not record.read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
