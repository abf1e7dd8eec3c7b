"""What a new study must satisfy before it is accepted, each complaint with the field it is about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from penstock import names
from penstock.algorithms.catalogue import CATALOGUE, Algorithm
from penstock.errors import FieldViolation, InvalidArgument
from services.tuning.model import Range, Study

MAX_PARAMETERS = 64
MAX_CATEGORIES = 256
MAX_TRIALS = 10_000
MAX_PARALLELISM = 64
MAX_NAME = 256
_EXACT = 2**53


def check_study(study: Study) -> None:
    """Raise InvalidArgument with every complaint that needs no other service."""
    violations = [*_space(study), *_rest(study)]
    if violations:
        raise InvalidArgument(" ".join(v.description for v in violations), violations=violations)


def lowest(space: Sequence[Range]) -> dict[str, Any]:
    """Some parameters of the space, to check a run with: the low ends and first categories."""
    return {found.name: found.value(0 if found.kind == "categorical" else found.low) for found in space}


def _rest(study: Study) -> Iterator[FieldViolation]:
    if not study.metric:
        yield FieldViolation("study.objective.metric", "Say which metric to search by, such as accuracy.")
    if not 1 <= study.max_trials <= MAX_TRIALS:
        yield FieldViolation("study.max_trials", f"A study has 1 to {MAX_TRIALS} trials, not {study.max_trials}.")
    if not 1 <= study.parallelism <= MAX_PARALLELISM:
        yield FieldViolation("study.parallelism", f"1 to {MAX_PARALLELISM} trials run at once.")
    try:
        names.check_id(study.model, "study.model")
    except InvalidArgument as error:
        yield from error.violations


def _space(study: Study) -> Iterator[FieldViolation]:
    if not study.space:
        yield FieldViolation("study.space", "The search space is empty: name at least one parameter and its range.")
    if len(study.space) > MAX_PARAMETERS:
        yield FieldViolation("study.space", f"A search space has at most {MAX_PARAMETERS} parameters.")
    fixed, seen = study.template.get("parameters", {}), set[str]()
    algorithm = CATALOGUE.get(study.template.get("code", {}).get("algorithm", ""))
    for index, searched in enumerate(study.space):
        field = f"study.space[{index}]"
        if not 1 <= len(searched.name) <= MAX_NAME:
            yield FieldViolation(f"{field}.name", f"A parameter's name has 1 to {MAX_NAME} characters.")
        if searched.name in seen:
            yield FieldViolation(f"{field}.name", f"'{searched.name}' is searched twice: keep one range.")
        if searched.name in fixed:
            text = f"'{searched.name}' is both fixed (parameters) and searched: remove one of the two."
            yield FieldViolation(f"{field}.name", text)
        seen.add(searched.name)
        problems = list(_range(searched, field))
        yield from problems
        if algorithm is not None and not problems:
            yield from _of_algorithm(searched, algorithm, field)


def _range(searched: Range, field: str) -> Iterator[FieldViolation]:
    if not searched.kind:
        yield FieldViolation(field, f"Give '{searched.name}' a range: float, int or categorical.")
    elif searched.kind == "categorical":
        yield from _categories(searched, f"{field}.categorical.values")
    else:
        yield from _numbers(searched, f"{field}.{searched.kind}")


def _categories(searched: Range, field: str) -> Iterator[FieldViolation]:
    if not 1 <= len(searched.choices) <= MAX_CATEGORIES:
        yield FieldViolation(field, f"'{searched.name}' needs 1 to {MAX_CATEGORIES} values to choose from.")
    if any(isinstance(choice, dict | list) or choice is None for choice in searched.choices):
        yield FieldViolation(field, f"The values of '{searched.name}' must be texts, numbers or true and false.")
    elif any(isinstance(choice, float) and not math.isfinite(choice) for choice in searched.choices):
        yield FieldViolation(field, f"NaN and infinities cannot be values of '{searched.name}'.")
    elif len({(isinstance(choice, bool), choice) for choice in searched.choices}) < len(searched.choices):
        yield FieldViolation(field, f"'{searched.name}' has a value twice.")


def _numbers(searched: Range, field: str) -> Iterator[FieldViolation]:
    low, high = searched.low, searched.high
    if not (math.isfinite(low) and math.isfinite(high)):
        yield FieldViolation(f"{field}.low", f"The range of '{searched.name}' must be between finite numbers.")
    elif low > high:
        text = f"The range of '{searched.name}' is empty: low ({low:g}) is above high ({high:g})."
        yield FieldViolation(f"{field}.low", text)
    elif searched.log and low <= 0:
        text = f"'{searched.name}' is searched on a logarithmic scale, so low must be above 0, not {low:g}."
        yield FieldViolation(f"{field}.low", text)
    elif searched.kind == "int" and max(-low, high) > _EXACT:
        yield FieldViolation(f"{field}.high", f"'{searched.name}' goes beyond what JSON numbers hold exactly.")


def _of_algorithm(searched: Range, algorithm: Algorithm, field: str) -> Iterator[FieldViolation]:
    """Whether the algorithm knows the parameter and takes what the range holds."""
    try:
        parameter = algorithm.parameter(searched.name)
    except InvalidArgument as error:
        text = error.message.partition(": ")[2] or error.message
        yield FieldViolation(f"{field}.name", f"'{searched.name}': {text}.")
        return
    if searched.kind == "float" and parameter.type == "int":
        yield FieldViolation(f"{field}.float", f"'{searched.name}' takes whole numbers: search it as int.")
        return
    ends = (
        searched.choices
        if searched.kind == "categorical"
        else (searched.value(searched.low), searched.value(searched.high))
    )
    for end in ends:
        try:
            parameter.parse(end)
        except ValueError as error:
            yield FieldViolation(f"{field}.{searched.kind}", f"'{searched.name}': {error}.")
