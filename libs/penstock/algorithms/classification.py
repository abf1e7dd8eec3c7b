"""Classification metrics from class codes, by their textbook definitions, with numpy alone.

Sources: precision, recall and F1 as in van Rijsbergen, *Information Retrieval* (1979), ch. 7, and the averages and the
zero-division rule (0) as in scikit-learn's user guide, "Classification metrics"; log loss as in Good, *Rational
Decisions* (1952): the mean of -ln p(true class).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassScores:
    """Per class, in the order of the confusion matrix: arrays [classes]."""

    precision: Doubles
    recall: Doubles
    f1: Doubles
    support: Codes
    predicted: Codes


def confusion_matrix(truth: Codes, predicted: Codes, classes: int) -> Codes:
    """Counts [classes, classes]: rows are true classes, columns predicted ones. Codes are 0 <= code < classes."""
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def accuracy(matrix: Codes) -> float:
    """The share of records on the diagonal: trace / sum. NaN if there are no records."""
    total = int(matrix.sum())
    return float(np.trace(matrix)) / total if total else float("nan")


def class_scores(matrix: Codes) -> ClassScores:
    """precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN); 0 where undefined."""
    hits = np.diag(matrix).astype(np.float64)
    predicted, support = matrix.sum(axis=0), matrix.sum(axis=1)
    return ClassScores(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, predicted + support),
        support=support,
        predicted=predicted,
    )


def macro(scores: ClassScores) -> dict[str, float]:
    """Means over the classes that occur, as a truth or as a prediction, each counting the same."""
    return _averaged(scores, (scores.support + scores.predicted > 0).astype(np.float64))


def weighted(scores: ClassScores) -> dict[str, float]:
    """Means over the classes, weighed by their support."""
    return _averaged(scores, scores.support.astype(np.float64))


def log_loss(probabilities: npt.NDArray[np.floating], truth: Codes) -> float:
    """Mean of -ln p(true class), natural logarithm. NaN if there are no records.

    p is clipped to [eps, 1 - eps] of the probabilities' own precision, as scikit-learn does, so that one confident
    mistake costs much but not infinity.
    """
    if not len(truth):
        return float("nan")
    eps = float(np.finfo(probabilities.dtype).eps)
    chosen = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.mean(np.log(np.clip(chosen, eps, 1 - eps))))


def _ratio(above: Doubles, below: npt.NDArray[np.generic]) -> Doubles:
    divisor = below.astype(np.float64)
    return np.divide(above, divisor, out=np.zeros_like(divisor), where=divisor > 0)


def _averaged(scores: ClassScores, weights: Doubles) -> dict[str, float]:
    total = weights.sum()
    columns = {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
    return {name: float((column * weights).sum() / total) if total else 0.0 for name, column in columns.items()}
