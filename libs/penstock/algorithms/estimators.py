"""The three scikit-learn classifiers: how each is fitted, which loss curve it has, and its conversion to ONNX.

Only jobs import this module: it pulls in scikit-learn and skl2onnx, which takes a second or two when cold.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from penstock.algorithms.classification import log_loss
from penstock.algorithms.columns import Floats
from penstock.algorithms.graph import ML_OPSET, OPSET
from penstock.algorithms.parameters import Parameters

Codes = npt.NDArray[np.int64]
Report = Callable[[str, float, int], None]
Log = Callable[[str], None]

# Loss curves of trees are computed after the fit, on at most this many records: enough for a curve.
_CURVE_RECORDS = 5000
_MIN_IMPROVEMENT = 1e-4


@dataclass(frozen=True)
class Sample:
    """Features [records, width] and class codes [records], of the records to fit or to measure on."""

    features: Floats
    codes: Codes

    def head(self, count: int) -> Sample:
        """The first records only."""
        return Sample(self.features[:count], self.codes[:count])


class Fit(Protocol):
    """Fits an estimator. `report(name, value, step)` gets the loss curve; `held_out` may be empty."""

    def __call__(self, sample: Sample, held_out: Sample, p: Parameters, report: Report, log: Log) -> Any:
        """The fitted scikit-learn classifier, whose classes are 0, 1, 2, ..."""


@dataclass(frozen=True)
class Trainer:
    """How to fit one built-in, and whether its features are standardised (trees need no scaling)."""

    fit: Fit
    standardise: bool


def fit_logistic_regression(sample: Sample, held_out: Sample, p: Parameters, report: Report, log: Log) -> Any:
    """L-BFGS in double precision; its only loss is the final one."""
    estimator = LogisticRegression(
        C=p.number("C"),
        max_iter=p.integer("max_iter"),
        tol=p.number("tol"),
        class_weight="balanced" if p.flag("balanced") else None,
        random_state=p.integer("seed"),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        estimator.fit(sample.features.astype(np.float64), sample.codes)
    step = int(np.max(estimator.n_iter_))
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log(f"the solver stopped after max_iter={step} iterations without converging; raise parameters.max_iter")
    report("train_loss", log_loss(estimator.predict_proba(sample.features), sample.codes), step)
    return estimator


def fit_gradient_boosting(sample: Sample, held_out: Sample, p: Parameters, report: Report, log: Log) -> Any:
    """All iterations, without early stopping; the curve per iteration is computed afterwards."""
    estimator = HistGradientBoostingClassifier(
        learning_rate=p.number("learning_rate"),
        max_iter=p.integer("max_iter"),
        max_leaf_nodes=p.integer("max_leaf_nodes"),
        max_depth=p.integer("max_depth") or None,
        min_samples_leaf=p.integer("min_samples_leaf"),
        l2_regularization=p.number("l2_regularization"),
        max_bins=p.integer("max_bins"),
        class_weight="balanced" if p.flag("balanced") else None,
        early_stopping=False,
        random_state=p.integer("seed"),
    )
    estimator.fit(sample.features, sample.codes)
    _round_thresholds(estimator)
    for name, part in (("train_loss", sample), ("validation_loss", held_out)):
        part = part.head(_CURVE_RECORDS)
        if len(part.codes):
            for step, probabilities in enumerate(estimator.staged_predict_proba(part.features), start=1):
                report(name, log_loss(probabilities, part.codes), step)
    return estimator


def _round_thresholds(estimator: Any) -> None:
    """Make the trees' thresholds float32, rounding down, before anything is predicted with them.

    ONNX compares in float32. For a float32 x, `x <= t` equals `x <= t'` with t' the largest float32 not above t, so
    the rounded trees are the same function of our features, and the ONNX model agrees with scikit-learn exactly.
    """
    for iteration in estimator._predictors:
        for tree in iteration:
            exact = tree.nodes["num_threshold"]
            with np.errstate(over="ignore"):
                rounded = exact.astype(np.float32)
            below = np.nextafter(rounded, np.float32(-np.inf))
            tree.nodes["num_threshold"] = np.where(rounded > exact, below, rounded).astype(np.float64)


def fit_mlp(sample: Sample, held_out: Sample, p: Parameters, report: Report, log: Log) -> Any:
    """Adam, one epoch at a time, so that the curve can be watched; stops when the training loss no longer falls."""
    estimator = MLPClassifier(
        hidden_layer_sizes=(p.integer("hidden_units"),) * p.integer("hidden_layers"),
        activation=p.text("activation"),
        learning_rate_init=p.number("learning_rate"),
        alpha=p.number("alpha"),
        batch_size=min(p.integer("batch_size"), len(sample.codes)),
        # One generator for all epochs: with a number instead, every epoch would shuffle alike.
        random_state=np.random.RandomState(p.integer("seed")),
    )
    classes = np.unique(sample.codes)
    best, waited = np.inf, 0
    for epoch in range(1, p.integer("epochs") + 1):
        estimator.partial_fit(sample.features, sample.codes, classes=classes)
        report("train_loss", float(estimator.loss_), epoch)
        if len(held_out.codes):
            probabilities = estimator.predict_proba(held_out.features)
            report("validation_loss", log_loss(probabilities, held_out.codes), epoch)
            report("validation_accuracy", float(np.mean(probabilities.argmax(axis=1) == held_out.codes)), epoch)
        waited = 0 if estimator.loss_ < best - _MIN_IMPROVEMENT else waited + 1
        best = min(best, float(estimator.loss_))
        if waited >= p.integer("patience"):
            log(f"stopped after {epoch} epochs: the training loss no longer falls")
            break
    return estimator


def convert(estimator: Any, width: int) -> onnx.ModelProto:
    """The estimator alone as ONNX: `features` FP32 [-1, width] -> `probabilities` FP32 [-1, classes]."""
    converted = convert_sklearn(
        estimator,
        initial_types=[("features", FloatTensorType([None, width]))],
        options={id(estimator): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
    )
    if not isinstance(converted, onnx.ModelProto):
        raise TypeError(f"skl2onnx gave {type(converted).__name__} instead of an ONNX model")
    return converted


TRAINERS: dict[str, Trainer] = {
    "logistic-regression": Trainer(fit_logistic_regression, standardise=True),
    "gradient-boosting": Trainer(fit_gradient_boosting, standardise=False),
    "mlp": Trainer(fit_mlp, standardise=True),
}
