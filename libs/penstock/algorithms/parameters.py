"""Typed parameters of the built-in algorithms, checked before a job starts and again inside it.

Pure Python on purpose: the training and tuning services validate with the same code that the job runs with, and the
documentation is generated from it, all without scikit-learn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.errors import FieldViolation, InvalidArgument

Value = bool | int | float | str | tuple[str, ...]
Type = Literal["bool", "int", "float", "string", "strings"]

_EXPECTED: dict[Type, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "a string",
    "strings": "a list of strings",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter: its type, default and what it may be.

    `minimum` and `maximum` are inclusive; `choices` are all values that a string may have; `log` says that a search
    over it should be on a logarithmic scale.
    """

    name: str
    type: Type
    default: Value
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    log: bool = False

    def parse(self, given: object) -> Value:
        """The value in its own type. ValueError says what was expected."""
        value = self._typed(given)
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._check_range(value)
        if self.choices and value not in self.choices:
            raise ValueError(f"{given!r} is none of {', '.join(self.choices)}")
        return value

    def _typed(self, given: object) -> Value:
        if self.type == "bool" and isinstance(given, bool):
            return given
        if self.type == "string" and isinstance(given, str):
            return given
        if self.type == "strings" and isinstance(given, str):
            return tuple(part.strip() for part in given.split(",") if part.strip())
        if self.type == "strings" and isinstance(given, Sequence) and all(isinstance(item, str) for item in given):
            return tuple(given)
        if self.type in ("int", "float") and isinstance(given, int | float) and not isinstance(given, bool):
            # Numbers pass through JSON and protobuf's Struct, which know only doubles: 3.0 is a whole number.
            if not math.isfinite(given):
                raise ValueError(f"{given!r} is not a finite number")
            if self.type == "float":
                return float(given)
            if float(given).is_integer():
                return int(given)
        raise ValueError(f"{_shown(given)} is not {_EXPECTED[self.type]}")

    def _check_range(self, value: float) -> None:
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"{value:g} is below the minimum {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise ValueError(f"{value:g} is above the maximum {self.maximum:g}")

    def to_json(self) -> dict[str, object]:
        """A JSON-able description: name, type, default, description, and the limits that are set."""
        described: dict[str, object] = {
            "name": self.name,
            "type": self.type,
            "default": list(self.default) if isinstance(self.default, tuple) else self.default,
            "description": self.description,
        }
        limits = {"minimum": self.minimum, "maximum": self.maximum}
        described.update({key: limit for key, limit in limits.items() if limit is not None})
        if self.choices:
            described["choices"] = list(self.choices)
        if self.log:
            described["log"] = True
        return described


@dataclass(frozen=True)
class Parameters:
    """Values after checking, by name, each with its parameter's type."""

    values: Mapping[str, Value]

    def number(self, name: str) -> float:
        """The value of a float parameter."""
        return float(self._of(name, int, float))

    def integer(self, name: str) -> int:
        """The value of an int parameter."""
        return int(self._of(name, int))

    def flag(self, name: str) -> bool:
        """The value of a bool parameter."""
        return bool(self._of(name, bool))

    def text(self, name: str) -> str:
        """The value of a string parameter."""
        return str(self._of(name, str))

    def texts(self, name: str) -> tuple[str, ...]:
        """The value of a parameter that is a list of strings."""
        value = self.values[name]
        if not isinstance(value, tuple):
            raise TypeError(f"parameter {name} is {value!r}, not a list of strings")
        return value

    def to_json(self) -> dict[str, object]:
        """The values as JSON-able objects."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.values.items()}

    def _of(self, name: str, *types: type) -> int | float | str:
        value = self.values[name]
        if not isinstance(value, types) or isinstance(value, tuple):
            raise TypeError(f"parameter {name} is {value!r}, not {types[0].__name__}")
        return value


def parse_parameters(
    schema: Sequence[Parameter], given: Mapping[str, object], *, prefix: str = "parameters"
) -> Parameters:
    """Check `given` against `schema` and fill in defaults; an explicit null means the default.

    Raises InvalidArgument with one violation per wrong or unknown parameter, named `<prefix>.<name>`.
    """
    known = {parameter.name: parameter for parameter in schema}
    violations: list[FieldViolation] = []
    values: dict[str, Value] = {parameter.name: parameter.default for parameter in schema}
    for name, value in given.items():
        if name not in known:
            violations.append(FieldViolation(f"{prefix}.{name}", f"unknown parameter; known are {', '.join(known)}"))
        elif value is not None:
            try:
                values[name] = known[name].parse(value)
            except ValueError as error:
                violations.append(FieldViolation(f"{prefix}.{name}", str(error)))
    if violations:
        raise InvalidArgument("; ".join(f"{v.field}: {v.description}" for v in violations), violations=violations)
    return Parameters(values)


def _shown(given: object) -> str:
    try:
        return json.dumps(given)
    except (TypeError, ValueError):
        return repr(given)
