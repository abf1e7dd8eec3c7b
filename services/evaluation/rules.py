"""Rules of verdicts: CEL over metrics, such as `accuracy >= baseline - 0.005`. Evaluating blocks: use a thread."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from penstock.algorithms.catalogue import EVALUATION_METRICS as METRICS
from penstock.errors import InvalidArgument
from penstock.expressions import InvalidExpression, evaluate, variables_of
from services.evaluation.model import Verdict

BASELINE = "baseline"
FIELD = "evaluation.rule"
_WORD = re.compile(r"\b[A-Za-z_]\w*")
_PARTS = re.compile(r"(&&|\|\||[?:])")  # a comparison stands between these


def check_rule(rule: str) -> None:
    """Raise InvalidArgument if a rule is not CEL over known metrics that says yes or no."""
    try:
        unknown = sorted(variables_of(rule) - {*METRICS, BASELINE})
    except InvalidExpression as error:
        raise InvalidArgument(f"The rule '{rule[:200]}' is not CEL: {error}", field=FIELD) from None
    if unknown:
        known = ", ".join(METRICS)
        raise InvalidArgument(f"The rule names '{unknown[0]}'; there are {known}, and baseline.", field=FIELD)
    _holds(rule, dict.fromkeys(METRICS, 0.5), dict.fromkeys(METRICS, 0.5))


def needs_baseline(rule: str) -> bool:
    """Whether a rule speaks of a baseline."""
    return BASELINE in _WORD.findall(rule)


def judge(
    rule: str, metrics: Mapping[str, float], baseline: str, baseline_metrics: Mapping[str, float] | None
) -> Verdict:
    """Whether a rule holds. One that needs a baseline passes where there is none: there is nothing to be worse than."""
    _, compared = _explicit(rule)
    if compared and baseline_metrics is None:
        return Verdict(True, rule, reason="there is no baseline yet")
    known = dict(baseline_metrics or {})
    named = [word for word in dict.fromkeys(_WORD.findall(rule)) if word in METRICS]
    lacking = [name for name in named if not _there(metrics, name)] or [
        f"{name} of the baseline" for name in compared if not _there(known, name)
    ]
    against, versus = (baseline, known) if compared else ("", {})
    if lacking:  # such as the loss of a model that gives no probabilities
        return Verdict(False, rule, against, versus, reason=f"there is no {lacking[0]}")
    try:
        passed = _holds(rule, metrics, known)
    except InvalidArgument as error:
        return Verdict(False, rule, against, versus, reason=error.message)
    reason = ", ".join(_told(name, metrics, versus) for name in compared or named[:1])
    return Verdict(passed, rule, against, versus, reason)


def _there(metrics: Mapping[str, float], name: str) -> bool:
    return not math.isnan(metrics.get(name, math.nan))


def _told(name: str, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    versus = f", baseline {baseline[name]:.4f}" if name in baseline else ""
    return f"{name} {metrics.get(name, math.nan):.4f}{versus}"


def _explicit(rule: str) -> tuple[str, Sequence[str]]:
    """The rule with `baseline_<metric>` for each `baseline`, and those metrics.

    `baseline` is the metric that its own comparison names, so `records > 100 && accuracy >= baseline` means accuracy.
    Raises InvalidArgument where that is not one.
    """
    parts: list[str] = []
    compared: list[str] = []
    for part in _PARTS.split(rule):
        words = _WORD.findall(part)
        if BASELINE in words:
            metrics = {word for word in words if word in METRICS}
            if len(metrics) != 1:
                raise InvalidArgument(
                    f"'{part.strip()}' must compare `baseline` with one metric, such as `accuracy >= baseline`.",
                    field=FIELD,
                )
            compared += metrics
            part = re.sub(rf"\b{BASELINE}\b", f"{BASELINE}_{compared[-1]}", part)
        parts.append(part)
    return "".join(parts), list(dict.fromkeys(compared))


def _holds(rule: str, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> bool:
    variables = {name: float(metrics.get(name, math.nan)) for name in METRICS}
    variables |= {f"{BASELINE}_{name}": float(baseline.get(name, math.nan)) for name in METRICS}
    try:
        value = evaluate(_explicit(rule)[0], variables)
    except InvalidExpression as error:
        raise InvalidArgument(f"The rule '{rule}' cannot be evaluated: {error}.", field=FIELD) from None
    if not isinstance(value, bool):
        raise InvalidArgument(f"The rule '{rule}' is {value!r}, neither true nor false.", field=FIELD)
    return value
