"""Turns a fitted estimator into a model directory, and refuses to if the ONNX model is another function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.algorithms.catalogue import Algorithm
from penstock.algorithms.columns import Column, UsableColumn
from penstock.algorithms.estimators import convert
from penstock.algorithms.features import Features
from penstock.algorithms.graph import build_model
from penstock.algorithms.inference import Array, OnnxModel, columns_to_inputs
from penstock.algorithms.labels import Label, Labels
from penstock.algorithms.model_writer import DEFAULT_TOLERANCE, write_model
from penstock.algorithms.parameters import Parameters
from penstock.algorithms.tables import Table
from penstock.errors import PenstockError

_EXAMPLES = 16
_CHECKED = slice(0, 20_000)
# An example whose two best classes are nearer than this may flip on other hardware: better take another one.
_CLEAR_MARGIN = 0.01


class ConversionMismatch(PenstockError):
    """The ONNX model and the estimator that it was converted from do not answer alike."""


@dataclass(frozen=True)
class Data:
    """The labelled records: decoded fields and labels, in order of the keys."""

    table: Table
    columns: dict[str, UsableColumn]
    labels: Labels


@dataclass(frozen=True)
class Fitted:
    """A scikit-learn estimator with its encoding; class codes are positions in `classes`."""

    features: Features
    estimator: Any
    classes: list[Label]

    def probabilities(self, columns: Mapping[str, Column]) -> npt.NDArray[np.floating]:
        """As scikit-learn computes them: [records, classes]."""
        result: npt.NDArray[np.floating] = self.estimator.predict_proba(self.features.encode(columns))
        return result


def write_fitted(folder: Path, data: Data, fitted: Fitted, algorithm: Algorithm, parameters: Parameters) -> None:
    """Convert, compare with scikit-learn on the records, choose examples, and write `folder`.

    Raises ConversionMismatch if a probability of any compared record differs by more than the tolerance.
    """
    columns = {name: column.part(_CHECKED) for name, column in data.columns.items()}
    width = fitted.features.encode(columns).shape[1]
    content = build_model(fitted.features, convert(fitted.estimator, width), fitted.classes)
    model = OnnxModel(content)
    inputs = columns_to_inputs(model.inputs, columns)
    _compare(model.predict(inputs)["probabilities"], fitted.probabilities(columns), data.table)
    card = data.table.card
    write_model(
        folder,
        content,
        _examples(model, inputs),
        task=algorithm.task,
        labels=fitted.classes,
        framework={
            "name": "scikit-learn",
            **{package: metadata.version(package) for package in ("scikit-learn", "skl2onnx", "onnx", "numpy")},
        },
        details={
            "algorithm": {"name": algorithm.name, "version": algorithm.version, "parameters": parameters.to_json()},
            "label_field": data.labels.field,
            "features": fitted.features.to_json(data.columns),
            "dataset": {"name": card.dataset, "version": card.version, "rows": data.table.rows},
        },
    )


def _compare(answered: Array, expected: Array, table: Table) -> None:
    apart = np.abs(answered - expected).max(axis=1)
    if not (apart <= DEFAULT_TOLERANCE).all():
        worst = int(np.argmax(np.nan_to_num(apart, nan=np.inf)))
        raise ConversionMismatch(
            f"the ONNX model and scikit-learn differ by {apart[worst]:.3g} in a probability of record "
            f"{table.keys()[worst]!r} (tolerance {DEFAULT_TOLERANCE}); please report this with the parameters"
        )


def _examples(model: OnnxModel, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs of up to 16 records: those with a clear answer and nothing missing first, and every class in turn."""
    complete = {name: _without_gaps(values) for name, values in inputs.items()}
    outputs = model.predict(complete)
    ordered = np.sort(outputs["probabilities"], axis=1)
    unclear = ordered[:, -1] - ordered[:, -2] < _CLEAR_MARGIN
    gaps = np.zeros(len(unclear), dtype=np.bool_)
    for name, values in inputs.items():
        gaps |= (values != complete[name]).reshape(len(values), -1).any(axis=1)
    seen: Counter[Label] = Counter()
    turns = []
    for label in outputs["label"].reshape(-1).tolist():
        turns.append(seen[label])
        seen[label] += 1
    chosen = np.sort(np.lexsort((np.array(turns), gaps, unclear))[:_EXAMPLES])
    return {name: values[chosen] for name, values in complete.items()}


def _without_gaps(values: Array) -> Array:
    """Numbers with zeros for what is missing: examples are JSON, which has no NaN."""
    return np.where(np.isnan(values), np.float32(0), values) if values.dtype == np.float32 else values
