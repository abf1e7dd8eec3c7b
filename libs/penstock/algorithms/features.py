"""From record fields to the numbers that an estimator sees, fitted once and written into the ONNX graph as well.

Numbers are standardised, a missing one becomes the mean, and a field that was ever missing gets an indicator (trees
take numbers as they are: they have a branch for missing ones). Text becomes one-hot over its most frequent values plus
one feature for all others, unseen ones included. `encode` and `penstock.algorithms.graph` do the same arithmetic in
the same precision; every training run compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock.algorithms.columns import (
    Column,
    Floats,
    MissingColumn,
    NumberColumn,
    TextColumn,
    UnusableColumn,
    UsableColumn,
)
from penstock.algorithms.tables import Table
from penstock.errors import InvalidArgument

OUTPUT_NAMES = ("label", "probabilities")
Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Numbers:
    """All numeric fields side by side, flattened: [records, width].

    `indicated` are the positions, among `width`, that get a feature saying "was missing".
    With `standardised` false, the numbers pass as they are.
    """

    fields: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    means: Floats
    inverse_deviations: Floats
    indicated: npt.NDArray[np.int64]
    standardised: bool

    def encode(self, columns: Mapping[str, Column]) -> Floats:
        """Features [records, width + indicators]."""
        blocks = [_numbers(columns[name]).values for name in self.fields]
        raw = np.concatenate([block.reshape(len(block), -1) for block in blocks], axis=1)
        if not self.standardised:
            return raw
        missing = np.isnan(raw)
        scaled = np.where(missing, np.float32(0), (raw - self.means) * self.inverse_deviations)
        return np.concatenate([scaled, missing[:, self.indicated].astype(np.float32)], axis=1)


@dataclass(frozen=True)
class Text:
    """One text field, one-hot: a feature per category, and a last one for every other value."""

    field: str
    categories: tuple[str, ...]

    def encode(self, columns: Mapping[str, Column]) -> Floats:
        """Features [records, categories + 1]."""
        column = columns[self.field]
        if not isinstance(column, TextColumn):
            raise InvalidArgument(f"field {self.field!r} is not text, which the model was trained on", field=self.field)
        position = {category: index for index, category in enumerate(self.categories)}
        other = len(self.categories)
        codes = [position.get(value, other) for value in column.values]
        encoded = np.zeros((len(codes), other + 1), dtype=np.float32)
        encoded[np.arange(len(codes)), codes] = 1.0
        return encoded


@dataclass(frozen=True)
class Features:
    """The whole encoding: numbers first, then the text fields."""

    numbers: Numbers | None
    texts: tuple[Text, ...]

    def encode(self, columns: Mapping[str, Column]) -> Floats:
        """What the estimator sees: float32 [records, features]."""
        blocks = [] if self.numbers is None else [self.numbers.encode(columns)]
        blocks.extend(text.encode(columns) for text in self.texts)
        return np.concatenate(blocks, axis=1)

    def to_json(self, columns: Mapping[str, Column]) -> list[dict[str, object]]:
        """What each input field is, for people and clients that read model.json."""
        described: list[dict[str, object]] = []
        if self.numbers is not None:
            for name, shape in zip(self.numbers.fields, self.numbers.shapes, strict=True):
                kind = "boolean" if _numbers(columns[name]).boolean else "number"
                described.append({"field": name, "kind": kind, "shape": list(shape), "missing": "NaN"})
        for text in self.texts:
            described.append({"field": text.field, "kind": "text", "categories": list(text.categories), "missing": ""})
        return described


def select_columns(
    table: Table, label: str, named: Sequence[str], log: Callable[[str], None]
) -> dict[str, UsableColumn]:
    """The fields to learn from, decoded: those named, else all that can be used but the label and the key.

    A field that cannot be used is left out with a line in the log, unless it was named: then InvalidArgument.
    """
    if label in named:
        raise InvalidArgument(f"parameters.features: {label!r} is the label", field="parameters.features")
    selected: dict[str, UsableColumn] = {}
    for name in dict.fromkeys(named) or [name for name in table.fields if name not in (label, table.card.key)]:
        if named and name not in table.fields:
            raise InvalidArgument(
                f"parameters.features: the dataset has no field {name!r}; its fields are {', '.join(table.fields)}",
                field="parameters.features",
            )
        column = table.column(name)
        reason = _unusable(column)
        if reason and named:
            raise InvalidArgument(
                f"parameters.features: {name!r} cannot be used: {reason}", field="parameters.features"
            )
        if reason or isinstance(column, MissingColumn | UnusableColumn):
            log(f"field {name!r} is left out: {reason}")
        else:
            _check_name(name)
            selected[name] = column
    if not selected:
        raise InvalidArgument("no field is left to learn from", field="parameters.features")
    return selected


def fit_features(columns: Mapping[str, Column], rows: Rows, *, standardise: bool, max_categories: int) -> Features:
    """Learn means, deviations and categories from the records where `rows` is true."""
    numeric = [column for column in columns.values() if isinstance(column, NumberColumn)]
    texts = [column for column in columns.values() if isinstance(column, TextColumn)]
    return Features(
        numbers=_fit_numbers(numeric, rows, standardise) if numeric else None,
        texts=tuple(_fit_text(column, rows, max_categories) for column in texts),
    )


def _fit_numbers(columns: Sequence[NumberColumn], rows: Rows, standardise: bool) -> Numbers:
    blocks = [column.values[rows].reshape(int(rows.sum()), -1) for column in columns]
    raw = np.concatenate(blocks, axis=1).astype(np.float64)
    missing = np.isnan(raw)
    counts = np.maximum((~missing).sum(axis=0), 1)
    means = np.where(missing, 0.0, raw).sum(axis=0) / counts
    deviations = np.sqrt((np.where(missing, 0.0, raw - means) ** 2).sum(axis=0) / counts)
    # A constant says nothing: its feature is always 0. Compared with the mean, as float32 has 24 bits.
    varies = deviations > 1e-7 * np.maximum(np.abs(means), 1e-30)
    return Numbers(
        fields=tuple(column.name for column in columns),
        shapes=tuple(column.shape for column in columns),
        means=means.astype(np.float32),
        inverse_deviations=np.where(varies, 1.0 / np.where(varies, deviations, 1.0), 0.0).astype(np.float32),
        indicated=np.flatnonzero(missing.any(axis=0)) if standardise else np.empty(0, dtype=np.int64),
        standardised=standardise,
    )


def _fit_text(column: TextColumn, rows: Rows, max_categories: int) -> Text:
    counts = Counter(column.values[rows])
    frequent = sorted(counts, key=lambda value: (-counts[value], value))[:max_categories]
    return Text(column.name, tuple(sorted(frequent)))


def _unusable(column: Column) -> str:
    """Why a column cannot be learnt from, or ""."""
    if isinstance(column, UnusableColumn):
        return column.reason
    if isinstance(column, MissingColumn):
        return "it is missing in every record"
    if isinstance(column, TextColumn):
        present = [value for value in column.values if value]
        distinct = len(set(present))
        if not present:
            return "it is missing in every record"
        if distinct > max(10, len(present) // 2):
            return f"its {distinct} different values in {len(present)} records look like an identifier or free text"
    return ""


def _check_name(name: str) -> None:
    if name in OUTPUT_NAMES:
        raise InvalidArgument(
            f"field {name!r} has the name of the model's output; rename it or leave it out with parameters.features",
            field=name,
        )


def _numbers(column: Column) -> NumberColumn:
    if not isinstance(column, NumberColumn):
        raise InvalidArgument(
            f"field {column.name!r} does not hold numbers, which the model was trained on", field=column.name
        )
    return column
