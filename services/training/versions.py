"""Models and their versions: values, and the one way in which a model gets a version. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from services.training import facts
from services.training.model import Artifact, Number


@dataclass(frozen=True)
class Model:
    """A named line of versions 1, 2, 3 …; `latest` is the number of the newest."""

    name: str
    project: str
    created: datetime
    updated: datetime
    latest: int = 0


@dataclass(frozen=True)
class ModelVersion:
    """What a run made, as it is served and compared. Never changes."""

    name: str
    model: str
    number: int
    run: str
    study: str
    dataset_version: str
    manifest: str
    code_commit: str
    algorithm: str
    parameters: dict[str, Any]
    metrics: dict[str, Number]
    task: str
    signature: dict[str, Any]
    labels: tuple[str, ...]
    artifact: str
    files: tuple[Artifact, ...]
    author: str
    created: datetime


def add_version(model: Model, version: ModelVersion, now: datetime) -> tuple[Model, tuple[Message, ...]]:
    """The model whose newest version is `version`; the same model if it knows that version already."""
    if model.latest >= version.number:
        return model, ()
    return replace(model, latest=version.number, updated=now), (facts.registered(version),)
