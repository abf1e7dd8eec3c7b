"""Evaluates a classifier on a dataset version: metrics as JSON, and a prediction per record as Parquet.

Runs any ONNX classifier with a `model.json`, made by a built-in or not, with numpy, pyarrow and onnxruntime alone.
Partition by partition, so that memory depends on the partitions' size, not on the dataset's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from penstock.algorithms import classification
from penstock.algorithms.inference import OnnxModel, columns_to_inputs
from penstock.algorithms.labels import Label, Labels, read_labels
from penstock.algorithms.metrics_log import MetricsLog
from penstock.algorithms.model_format import MODEL_FILE, ModelCard
from penstock.algorithms.parameters import Parameters
from penstock.algorithms.tables import KEY, REVISION, Table, partitions
from penstock.errors import InvalidArgument
from penstock.runtime.settings import JobEnvironment

Codes = npt.NDArray[np.int64]

PREDICTIONS_FILE = "predictions.parquet"
METRICS_FILE = "metrics.json"


@dataclass(frozen=True)
class Predicted:
    """A model's answers to one partition: classes, and [records, classes] probabilities if the model gives them."""

    labels: list[Label]
    probabilities: npt.NDArray[np.floating] | None


class Totals:
    """What adds up over the partitions. Codes are positions in `classes`: the model's, then those met in the data."""

    def __init__(self, model_labels: Sequence[Label]) -> None:
        self.classes: list[Label] = list(model_labels)
        self.known = len(self.classes)
        self.truth: list[Codes] = []
        self.predicted: list[Codes] = []
        self.loss = 0.0
        self.loss_records = 0
        self.unlabelled = 0
        self.unseen: Counter[Label] = Counter()

    def add(self, labels: Labels, predicted: Predicted) -> None:
        """Count one partition, all of whose records have labels."""
        found = {label for label in (*labels.values, *predicted.labels) if label is not None}
        self.classes += sorted(found.difference(self.classes), key=lambda label: (isinstance(label, str), label))
        truth = labels.codes(self.classes)
        self.truth.append(truth)
        self.predicted.append(Labels("predicted", tuple(predicted.labels)).codes(self.classes))
        learnt = truth < self.known
        self.unseen.update(
            value for value, known in zip(labels.values, learnt, strict=True) if value is not None and not known
        )
        if predicted.probabilities is not None and learnt.any():
            count = int(learnt.sum())
            self.loss += classification.log_loss(predicted.probabilities[learnt], truth[learnt]) * count
            self.loss_records += count

    def to_json(self) -> dict[str, Any]:
        """The content of metrics.json."""
        matrix = classification.confusion_matrix(
            np.concatenate(self.truth), np.concatenate(self.predicted), len(self.classes)
        )
        scores = classification.class_scores(matrix)
        columns = (scores.precision, scores.recall, scores.f1, scores.support)
        return {
            "records": int(matrix.sum()),
            "unlabelled": self.unlabelled,
            "accuracy": classification.accuracy(matrix),
            "log_loss": self.loss / self.loss_records if self.loss_records else None,
            "macro": classification.macro(scores),
            "weighted": classification.weighted(scores),
            "labels": self.classes,
            "confusion_matrix": matrix.tolist(),
            "per_class": [
                {"label": label, "precision": p, "recall": r, "f1": f, "support": int(n)}
                for label, p, r, f, n in zip(self.classes, *(c.tolist() for c in columns), strict=True)
            ],
            "unseen_labels": [
                {"label": label, "records": count} for label, count in sorted(self.unseen.items(), key=str)
            ],
        }


def evaluate(parameters: Parameters, environment: JobEnvironment, log: Callable[[str], None]) -> None:
    """Evaluate the input `model` on the input `data`; write metrics.json and predictions.parquet.

    A label that the model never learnt counts as wrong, is listed in `unseen_labels`, and stays out of the log loss
    (which would be infinite). Raises InvalidArgument for a field that is missing or does not fit, labels of another
    type than the model's, and data without any label.
    """
    folder = environment.input("model")
    card = ModelCard.load(folder)
    if card.task != "classification":
        raise InvalidArgument(f"the model's task is {card.task!r}; only classification can be evaluated so")
    model = OnnxModel(folder / MODEL_FILE, threads=environment.threads)
    totals = Totals(card.labels)
    environment.output_dir.mkdir(parents=True, exist_ok=True)
    path = environment.output_dir / PREDICTIONS_FILE
    with pq.ParquetWriter(path, _schema(card), compression="zstd") as writer:
        for part in partitions(environment.input("data")):
            _evaluate_part(part, parameters.text("label"), card, model, totals, writer)
    if not totals.truth:
        raise InvalidArgument("no record of the dataset version has a label: nothing can be evaluated")
    metrics = totals.to_json()
    card_path = environment.output_dir / METRICS_FILE
    card_path.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _report(metrics, environment.metrics_file, log)


def _evaluate_part(
    part: Table, named: str, card: ModelCard, model: OnnxModel, totals: Totals, writer: pq.ParquetWriter
) -> None:
    labels = read_labels(part, named or str(card.details.get("label_field") or part.card.label))
    present = labels.present
    totals.unlabelled += int((~present).sum())
    if not present.any():
        return
    if not present.all():
        part = part.take(present)
        labels = Labels(labels.field, tuple(value for value in labels.values if value is not None))
    _check_type(labels, card)
    predicted = _predict(part, card, model)
    totals.add(labels, predicted)
    chosen = None if predicted.probabilities is None else predicted.probabilities.max(axis=1).astype(np.float64)
    columns = {
        KEY: part.arrow.column(KEY).cast(pa.string()),
        REVISION: part.arrow.column(REVISION).cast(pa.string()),
        "label": pa.array(labels.values),
        "predicted": pa.array(predicted.labels),
        "probability": pa.nulls(part.rows, pa.float64()) if chosen is None else pa.array(chosen),
        "correct": pa.array([a == b for a, b in zip(labels.values, predicted.labels, strict=True)], pa.bool_()),
    }
    writer.write_table(pa.table(columns, schema=_schema(card)))


def _predict(part: Table, card: ModelCard, model: OnnxModel) -> Predicted:
    """The classes that the model answers: its output `label`, else the most probable one."""
    for spec in model.inputs:
        if spec.name not in part.fields:
            raise InvalidArgument(
                f"the model takes {spec.name!r}, but the dataset has no field of that name; "
                f"its fields are {', '.join(part.fields)}",
                field=spec.name,
            )
    columns = {spec.name: part.column(spec.name) for spec in model.inputs}
    outputs = model.predict(columns_to_inputs(model.inputs, columns))
    probabilities = outputs.get("probabilities")
    if probabilities is not None and probabilities.shape[1:] != (len(card.labels),):
        raise InvalidArgument(f"the model's probabilities have shape {probabilities.shape}, not a column per label")
    if "label" in outputs:
        return Predicted(outputs["label"].reshape(-1).tolist(), probabilities)
    if probabilities is None:
        raise InvalidArgument("the model has neither an output `label` nor `probabilities`: it is no classifier")
    return Predicted([card.labels[code] for code in probabilities.argmax(axis=1)], probabilities)


def _check_type(labels: Labels, card: ModelCard) -> None:
    """Text labels never equal numbers: say so instead of reporting that everything is wrong."""
    given, learnt = labels.values[0], card.labels[0]
    if isinstance(given, str) != isinstance(learnt, str):
        raise InvalidArgument(
            f"label field {labels.field!r} holds {'text' if isinstance(given, str) else 'numbers'} ({given!r}), "
            f"but the model's labels are {'text' if isinstance(learnt, str) else 'numbers'} ({learnt!r})",
            field=labels.field,
        )


def _schema(card: ModelCard) -> pa.Schema:
    label = pa.string() if card.labels and isinstance(card.labels[0], str) else pa.int64()
    return pa.schema(
        {
            KEY: pa.string(),
            REVISION: pa.string(),
            "label": label,
            "predicted": label,
            "probability": pa.float64(),
            "correct": pa.bool_(),
        }
    )


def _report(metrics: dict[str, Any], file: Path | None, log: Callable[[str], None]) -> None:
    scalars = MetricsLog(file)
    scalars.report("accuracy", metrics["accuracy"])
    if metrics["log_loss"] is not None:
        scalars.report("log_loss", metrics["log_loss"])
    for average in ("macro", "weighted"):
        for name, value in metrics[average].items():
            scalars.report(f"{average}_{name}", value)
    log(f"accuracy {metrics['accuracy']:.4f} on {metrics['records']} records")
    for unseen in metrics["unseen_labels"]:
        log(f"{unseen['records']} records have the label {unseen['label']!r}, which the model never learnt")
