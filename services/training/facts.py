"""The events of training, made from the run or the model version that they are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from penstock.api.event.v1 import events_pb2 as events
from penstock.rpc.structs import to_struct

if TYPE_CHECKING:
    from services.training.model import Number, Run
    from services.training.versions import ModelVersion


def numbers(metrics: Mapping[str, Number]) -> dict[str, float]:
    """Metrics as doubles, NaN and infinities included."""
    return {name: float(value) for name, value in metrics.items()}


def queued(run: Run) -> events.RunQueued:
    """A run was accepted."""
    return events.RunQueued(
        run=run.name,
        dataset_version=run.dataset_version,
        algorithm=run.code.algorithm,
        parameters=to_struct(run.parameters),
        code_source=run.code.source,
        subject=run.author,
        trial=run.trial,
    )


def started(run: Run) -> events.RunStarted:
    """An attempt was entered."""
    return events.RunStarted(run=run.name, attempt=run.attempt)


def succeeded(run: Run) -> events.RunSucceeded:
    """The run's completion was accepted, and its model version (if it makes one) is there."""
    return events.RunSucceeded(
        run=run.name,
        attempt=run.attempt,
        dataset_version=run.dataset_version,
        manifest=run.manifest,
        code_commit=run.code_commit,
        metrics=numbers(run.metrics),
        artifact=run.artifact,
        trial=run.trial,
        algorithm=run.code.algorithm,
        parameters=to_struct(run.parameters),
    )


def failed(run: Run) -> events.RunFailed:
    """The run ended without a result."""
    return events.RunFailed(run=run.name, attempt=run.attempt, reason=run.reason, trial=run.trial)


def cancelled(run: Run) -> events.RunCancelled:
    """The run was cancelled, and nothing of it runs."""
    return events.RunCancelled(run=run.name, reason=run.reason, trial=run.trial)


def registered(version: ModelVersion) -> events.ModelRegistered:
    """A model has a new version."""
    return events.ModelRegistered(
        model=version.model,
        model_version=version.name,
        number=version.number,
        run=version.run,
        dataset_version=version.dataset_version,
        artifact=version.artifact,
        metrics=numbers(version.metrics),
        study=version.study,
    )
