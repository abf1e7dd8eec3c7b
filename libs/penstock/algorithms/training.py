"""Runs a built-in trainer on the job's input: measure on held-out records, fit the model to keep, write it.

Held-out records are chosen by a hash of the record key, so that a record stays on its side from version to version and
from trial to trial.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from penstock.algorithms.catalogue import Algorithm
from penstock.algorithms.classification import log_loss
from penstock.algorithms.columns import NumberColumn, UsableColumn
from penstock.algorithms.estimators import TRAINERS, Log, Report, Sample, Trainer
from penstock.algorithms.export import Data, Fitted, write_fitted
from penstock.algorithms.features import Rows, fit_features, select_columns
from penstock.algorithms.labels import Labels, check_trainable, read_labels
from penstock.algorithms.metrics_log import MetricsLog
from penstock.algorithms.parameters import Parameters
from penstock.algorithms.tables import read_table
from penstock.runtime.settings import JobEnvironment

# Below this many numbers a second thread costs BLAS more than it brings (measured: 7x slower on 1,400 x 64).
_SMALL = 10_000_000


def train(algorithm: Algorithm, parameters: Parameters, environment: JobEnvironment, log: Log) -> None:
    """Train on the input `train`, write `<output>/model`, and append metrics.

    Raises InvalidArgument for data or parameters that cannot work, ConversionMismatch if the ONNX model is not the
    same function as the fitted estimator.
    """
    data = _read(environment, parameters, log)
    metrics = MetricsLog(environment.metrics_file)
    held_out = _held_out(data, parameters.number("validation_fraction"), log)
    fit = _Fit(TRAINERS[algorithm.name], data, parameters, log)
    fitted = fit(~held_out, held_out, metrics.report)
    if held_out.any():
        _measure(fitted, data, held_out, metrics, log)
        if parameters.flag("refit"):
            fitted = fit(np.ones_like(held_out), np.zeros_like(held_out), lambda name, value, step: None)
    write_fitted(environment.output_dir / "model", data, fitted, algorithm, parameters)
    log(f"wrote the model: {len(fitted.classes)} classes, {len(data.columns)} fields")


def _read(environment: JobEnvironment, parameters: Parameters, log: Log) -> Data:
    table = read_table(environment.input("train"))
    labels = read_labels(table, parameters.text("label") or table.card.label)
    check_trainable(labels)
    unlabelled = int((~labels.present).sum())
    if unlabelled:
        log(f"{unlabelled} of {table.rows} records have no label and are left out")
        table = table.take(labels.present)
        labels = Labels(labels.field, tuple(value for value in labels.values if value is not None))
    columns = select_columns(table, labels.field, parameters.texts("features"), log)
    log(f"{table.rows} records, {len(columns)} fields, label {labels.field!r} with {len(labels.classes())} classes")
    _warn_about_precision(columns, log)
    return Data(table, columns, labels)


@dataclass(frozen=True)
class _Fit:
    trainer: Trainer
    data: Data
    parameters: Parameters
    log: Log

    def __call__(self, rows: Rows, held_out: Rows, report: Report) -> Fitted:
        """Fit on `rows`; the loss curve is also computed for those held out whose class occurs in `rows`."""
        data, parameters = self.data, self.parameters
        chosen = zip(data.labels.values, rows, strict=True)
        classes = Labels(data.labels.field, tuple(value for value, kept in chosen if kept)).classes()
        features = fit_features(
            data.columns,
            rows,
            standardise=self.trainer.standardise,
            max_categories=parameters.integer("max_categories"),
        )
        encoded, codes = features.encode(data.columns), data.labels.codes(classes)
        known = held_out & (codes >= 0)
        part, held_part = Sample(encoded[rows], codes[rows]), Sample(encoded[known], codes[known])
        with threadpool_limits(limits=1 if encoded.size < _SMALL else None, user_api="blas"):
            estimator = self.trainer.fit(part, held_part, parameters, report, self.log)
        return Fitted(features, estimator, classes)


def _held_out(data: Data, fraction: float, log: Log) -> Rows:
    """Which records the metrics are measured on; none if what remains could not be learnt from."""
    limit = int(fraction * 2**64)
    hashes = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in data.table.keys())  # noqa: SIM118
    chosen = np.array([int.from_bytes(digest, "big") < limit for digest in hashes], dtype=np.bool_)
    kept = {label for label, held in zip(data.labels.values, chosen, strict=True) if not held}
    if fraction > 0 and (not chosen.any() or len(kept) < 2):
        log("too few records to hold any out: nothing is measured")
        return np.zeros_like(chosen)
    return chosen


def _measure(fitted: Fitted, data: Data, held_out: Rows, metrics: MetricsLog, log: Log) -> None:
    """Accuracy and log loss on the held-out records; a class not learnt counts as wrong, and not in the loss."""
    codes = data.labels.codes(fitted.classes)[held_out]
    encoded = fitted.features.encode(data.columns)[held_out]
    probabilities = fitted.estimator.predict_proba(encoded)
    accuracy = float(np.mean(probabilities.argmax(axis=1) == codes))
    metrics.report("accuracy", accuracy)
    known = codes >= 0
    if known.any():
        metrics.report("log_loss", log_loss(probabilities[known], codes[known]))
    log(f"accuracy {accuracy:.4f} on {len(codes)} held-out records")


def _warn_about_precision(columns: Mapping[str, UsableColumn], log: Log) -> None:
    for name, column in columns.items():
        if isinstance(column, NumberColumn) and np.nanmax(np.abs(column.values)) > 2**24:
            log(f"field {name!r} has numbers above 16,777,216, which single precision rounds")
