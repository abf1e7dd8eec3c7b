"""Rules of verdicts: CEL over metrics, such as `accuracy >= baseline - 0.005`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import cel

from penstock.errors import InvalidArgument
from services.evaluation.model import Verdict

# What an evaluation computes; a rule that names anything else can never hold.
METRICS = (
    "accuracy", "log_loss", "macro_precision", "macro_recall", "macro_f1", "weighted_precision", "weighted_recall",
    "weighted_f1", "records",
)  # fmt: skip
BASELINE = "baseline"
_WORD = re.compile(r"(?<![\w.\"'])([A-Za-z_]\w*)")


def check_rule(rule: str) -> None:
    """Raise InvalidArgument if a rule is not CEL over known metrics that says yes or no."""
    unknown = [word for word in _words(rule) if word not in (*METRICS, BASELINE)]
    if unknown:
        known = ", ".join(METRICS)
        raise InvalidArgument(
            f"The rule names '{unknown[0]}'; there are {known}, and baseline.", field="evaluation.rule"
        )
    if BASELINE in _words(rule) and not _compared(rule):
        raise InvalidArgument("A rule with `baseline` must name the metric it is of.", field="evaluation.rule")
    _holds(rule, dict.fromkeys(METRICS, 0.5), dict.fromkeys(METRICS, 0.5))


def judge(
    rule: str, metrics: Mapping[str, float], baseline: str, baseline_metrics: Mapping[str, float] | None
) -> Verdict:
    """Whether a rule holds. One that needs a baseline passes where there is none: there is nothing to be worse than."""
    needs = BASELINE in _words(rule)
    if needs and baseline_metrics is None:
        return Verdict(True, rule, reason="there is no baseline yet")
    known = dict(baseline_metrics or {})
    passed = _holds(rule, metrics, known)
    measured = _compared(rule) or "accuracy"
    versus = f", baseline {known[measured]:.4f}" if needs and measured in known else ""
    reason = f"{measured} {metrics.get(measured, float('nan')):.4f}{versus}"
    return Verdict(passed, rule, baseline if needs else "", known if needs else {}, reason)


def _words(rule: str) -> list[str]:
    return [word for word in _WORD.findall(rule) if word not in ("true", "false", "null", "in")]


def _compared(rule: str) -> str:
    """The metric that `baseline` stands for: the first one that the rule names."""
    return next((word for word in _words(rule) if word in METRICS), "")


def _holds(rule: str, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> bool:
    variables: dict[str, float] = {name: float(metrics.get(name, float("nan"))) for name in METRICS}
    variables[BASELINE] = float(baseline.get(_compared(rule), float("nan")))
    try:
        value = cel.evaluate(rule, variables)
    except Exception as error:  # noqa: BLE001 (the library raises many kinds for what is wrong with a rule)
        raise InvalidArgument(f"The rule '{rule}' cannot be evaluated: {error}.", field="evaluation.rule") from None
    if not isinstance(value, bool):
        raise InvalidArgument(f"The rule '{rule}' is {value!r}, neither true nor false.", field="evaluation.rule")
    return value
