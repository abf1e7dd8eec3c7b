"""An aggregate to test with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from penstock.store import Aggregates, Database


class State(Enum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"


@dataclass(frozen=True)
class Attempt:
    number: int
    started: datetime | None = None


@dataclass(frozen=True)
class Run:
    project: str
    state: State = State.QUEUED
    steps: int = 0
    created: datetime = datetime(2026, 11, 20, 12, 0, 0, 1000, tzinfo=UTC)
    parameters: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    alias: str | None = None


@dataclass(frozen=True)
class Happened:
    type: str = "training.run.queued"
    data: Mapping[str, object] = field(default_factory=dict)


def name(id: str) -> str:
    return f"projects/p/runs/{id}"


async def runs_in(database: Database) -> Aggregates[Run]:
    runs = Aggregates(
        database,
        "runs",
        Run,
        indexes={
            "project": lambda run: run.project,
            "state": lambda run: run.state,
            "steps": lambda run: run.steps,
            "created": lambda run: run.created,
            "alias": lambda run: run.alias,
        },
        unique=("alias",),
    )
    await runs.prepare()
    return runs
