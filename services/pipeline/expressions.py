"""CEL in pipelines: filters, conditions, and `${…}` in the settings of steps. Evaluating blocks: use a thread."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Any

from penstock.errors import InvalidArgument
from penstock.expressions import InvalidExpression, variables_of
from penstock.expressions import evaluate as evaluate_cel

TRIGGER_VARIABLES = frozenset({"event"})
STEP_VARIABLES = frozenset({"event", "causes", "steps"})
_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_MEMBER = r"""(?:\.([A-Za-z_]\w*)\b(?!\s*\()|\[\s*["']([^"']*)["']\s*\])"""  # not a call, such as `.size()`
_STEP = re.compile(rf"(?<![.\w])steps{_MEMBER}{_MEMBER}?")


def check(expression: str, field: str, variables: Set[str]) -> None:
    """Raise InvalidArgument, naming `field`, if an expression is not CEL over `variables`."""
    try:
        unknown = sorted(variables_of(expression) - variables)
    except InvalidExpression as error:
        reason = str(error).removeprefix(f"Failed to parse expression '{expression}': ")  # it was just said
        raise InvalidArgument(f"{field}: '{_short(expression)}' is not CEL: {reason}", field=field) from None
    if unknown:
        known = ", ".join(sorted(variables))
        raise InvalidArgument(f"{field}: '{_short(expression)}' names '{unknown[0]}'; there is {known}.", field=field)


def check_condition(expression: str, field: str, variables: Set[str]) -> None:
    """Raise InvalidArgument as `check` does, and for a constant that is neither true nor false."""
    check(expression, field, variables)
    if not variables_of(expression):
        holds(expression, {}, field)


def evaluate(expression: str, variables: Mapping[str, Any], field: str) -> Any:
    """The value of an expression; raises InvalidArgument, naming `field`, where it cannot be computed."""
    try:
        return evaluate_cel(expression, variables)
    except InvalidExpression as error:
        raise InvalidArgument(
            f"{field}: '{_short(expression)}' cannot be evaluated: {error}. Use has(…) for what may be missing.",
            field=field,
        ) from None


def holds(expression: str, variables: Mapping[str, Any], field: str) -> bool:
    """Whether a condition holds (an empty one does); raises InvalidArgument if it is no boolean."""
    if not expression:
        return True
    value = evaluate(expression, variables, field)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{field}: '{expression}' is {value!r}, which is neither true nor false.", field=field)
    return value


def resolve(value: Any, variables: Mapping[str, Any], field: str) -> Any:
    """Settings with their references replaced: `${…}` alone keeps its type, within text it becomes text."""
    if isinstance(value, Mapping):
        return {key: resolve(item, variables, f"{field}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolve(item, variables, f"{field}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return evaluate(whole[1], variables, field)
    return _REFERENCE.sub(lambda match: _text(evaluate(match[1], variables, field)), value)


def _short(expression: str) -> str:
    return expression if len(expression) <= 200 else f"{expression[:200]}…"


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def check_references(value: Any, known: Mapping[str, Set[str]], field: str) -> None:
    """Raise InvalidArgument for a `${` that is not closed, or a reference as `check_expression` does."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_references(item, known, f"{field}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_references(item, known, f"{field}[{index}]")
    elif isinstance(value, str):
        for match in _REFERENCE.finditer(value):
            check_expression(match[1], known, field)
        if "${" in _REFERENCE.sub("", value):
            raise InvalidArgument(f"{field}: '{_short(value)}' has a `${{` without a `}}`.", field=field)


def check_expression(expression: str, known: Mapping[str, Set[str]], field: str) -> None:
    """Raise InvalidArgument if an expression is not CEL, or refers to a step or an output that is not in `known`."""
    check(expression, field, STEP_VARIABLES)
    for match in _STEP.finditer(expression):
        step, output = match[1] or match[2], match[3] or match[4]
        if step not in known:
            before = f"before it come {', '.join(sorted(known))}" if known else "no step comes before it"
            raise InvalidArgument(f"{field}: there is no earlier step '{step}'; {before}.", field=field)
        if output and output not in known[step]:
            gives = ", ".join(sorted(known[step]))
            raise InvalidArgument(f"{field}: the step '{step}' gives no '{output}'; it gives {gives}.", field=field)
