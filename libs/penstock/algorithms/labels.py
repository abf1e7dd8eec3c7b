"""The label column: what may be a class, and the errors when it is not."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.algorithms.tables import Table
from penstock.errors import InvalidArgument

Label = int | str
MAX_CLASSES = 1000


@dataclass(frozen=True)
class Labels:
    """The label of each record, None where missing; all are text, or all are whole numbers (booleans: 0 and 1)."""

    field: str
    values: tuple[Label | None, ...]

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which records have a label."""
        return np.fromiter((value is not None for value in self.values), dtype=np.bool_, count=len(self.values))

    def classes(self) -> list[Label]:
        """The different labels, sorted."""
        return sorted({value for value in self.values if value is not None}, key=_order)

    def codes(self, classes: list[Label]) -> npt.NDArray[np.int64]:
        """The position of each record's label in `classes`; -1 where it is missing or not among them."""
        position = {label: code for code, label in enumerate(classes)}
        found = (-1 if value is None else position.get(value, -1) for value in self.values)
        return np.fromiter(found, dtype=np.int64, count=len(self.values))


def read_labels(table: Table, name: str) -> Labels:
    """Decode the label field. InvalidArgument if it is absent, or mixes text and numbers, or holds fractions."""
    if not name:
        raise InvalidArgument(
            "there is no label field: set parameters.label, or the dataset's label field", field="parameters.label"
        )
    if name not in table.fields:
        raise InvalidArgument(
            f"parameters.label: the dataset has no field {name!r}; its fields are {', '.join(table.fields)}",
            field="parameters.label",
        )
    arrow, is_json = table.raw(name)
    if pa.types.is_nested(arrow.type):
        raise InvalidArgument(f"label field {name!r} holds {arrow.type}; a label is text or a whole number", field=name)
    values: list[Label | None] = []
    for row, given in enumerate(arrow.to_pylist()):
        value = json.loads(given) if is_json and given is not None else given
        try:
            values.append(_label(value))
        except ValueError as error:
            key = table.keys()[row]
            raise InvalidArgument(f"label field {name!r} of record {key!r}: {error}", field=name) from error
    _check_one_type(table, name, values)
    return Labels(name, tuple(values))


def check_trainable(labels: Labels) -> None:
    """Refuse what no classifier can learn from: fewer than two labelled records or classes, or far too many classes."""
    classes = labels.classes()
    count = int(labels.present.sum())
    problem = ""
    if count == 0:
        problem = "is missing in every record"
    elif count < 2:
        problem = "is there in one record only; at least 2 are needed"
    elif len(classes) < 2:
        problem = f"is {classes[0]!r} in all {count} records; at least 2 different labels are needed"
    elif len(classes) > MAX_CLASSES:
        problem = f"has {len(classes)} different values; at most {MAX_CLASSES} classes can be learnt (is it a key?)"
    if problem:
        raise InvalidArgument(f"label field {labels.field!r} {problem}", field=labels.field)


def _label(value: object) -> Label | None:
    """A label in its own type; "" and NaN are missing."""
    if value is None or value == "":
        return None
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        if value != value:
            return None
        if value.is_integer():
            return int(value)
        raise ValueError(f"{value!r} is not a whole number; classification needs text or whole numbers")
    raise ValueError(f"{value!r} is neither text nor a whole number")


def _check_one_type(table: Table, name: str, values: list[Label | None]) -> None:
    texts = [row for row, value in enumerate(values) if isinstance(value, str)]
    numbers = [row for row, value in enumerate(values) if isinstance(value, int)]
    if texts and numbers:
        keys = table.keys()
        raise InvalidArgument(
            f"label field {name!r} mixes text ({values[texts[0]]!r} in record {keys[texts[0]]!r}) and numbers "
            f"({values[numbers[0]]!r} in record {keys[numbers[0]]!r}); make it one type",
            field=name,
        )


def _order(label: Label) -> tuple[bool, Label]:
    return isinstance(label, str), label
