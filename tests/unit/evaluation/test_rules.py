"""Rules: what they may say, and what `baseline` means in them."""

from __future__ import annotations

import pytest

from penstock.errors import InvalidArgument
from services.evaluation.rules import check_rule, judge

NOW = {"accuracy": 0.9, "macro_f1": 0.8, "records": 400.0}
BEFORE = {"accuracy": 0.92, "macro_f1": 0.7, "records": 100.0}


@pytest.mark.parametrize(
    "rule",
    [
        "accuracy > 0.9",
        "accuracy >= baseline - 0.005",
        "records > 100.0 && accuracy >= baseline",
        "accuracy >= baseline && macro_f1 >= baseline",
        "!(log_loss > 2.0)",
        "accuracy in [0.5, 1.0]",
    ],
)
def test_rules_over_metrics_are_taken(rule: str) -> None:
    check_rule(rule)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("accuracy >", "not CEL"),
        ("precision > 0.5", "names 'precision'"),
        ("accuracy", "neither true nor false"),
        ("baseline > 0.5", "with one metric"),
        ("accuracy > baseline + macro_f1", "with one metric"),
        ("accuracy - 1 > 0.0", "cannot be evaluated"),
        ("'accuracy' > 1", "cannot be evaluated"),
    ],
)
def test_rules_that_cannot_work_are_refused_with_the_field(rule: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        check_rule(rule)
    assert caught.value.violations[0].field == "evaluation.rule"


@pytest.mark.parametrize(
    ("rule", "passed"),
    [
        ("accuracy >= baseline", False),
        ("accuracy >= baseline - 0.05", True),
        ("macro_f1 >= baseline", True),
        ("records > 300.0 && accuracy >= baseline - 0.05", True),
        ("records > 300.0 && accuracy >= baseline", False),
        ("accuracy >= baseline - 0.05 && macro_f1 >= baseline", True),
        ("accuracy >= baseline || macro_f1 >= baseline", True),
    ],
)
def test_baseline_is_the_metric_of_its_own_comparison(rule: str, passed: bool) -> None:
    assert judge(rule, NOW, "v1", BEFORE).passed is passed


def test_a_verdict_says_what_was_compared() -> None:
    verdict = judge("accuracy >= baseline", NOW, "v1", BEFORE)
    assert (verdict.baseline, verdict.reason) == ("v1", "accuracy 0.9000, baseline 0.9200")
    alone = judge("accuracy > 0.5", NOW, "v1", BEFORE)
    assert (alone.baseline, dict(alone.baseline_metrics), alone.reason) == ("", {}, "accuracy 0.9000")


def test_without_a_baseline_a_rule_that_needs_one_passes_and_others_are_judged() -> None:
    assert judge("accuracy >= baseline", NOW, "", None).passed
    assert not judge("accuracy > 0.99", NOW, "", None).passed


def test_a_rule_over_what_a_model_does_not_give_fails_and_says_so() -> None:
    verdict = judge("log_loss < 2.0", NOW, "", None)
    assert (verdict.passed, verdict.reason) == (False, "there is no log_loss")
    assert judge("log_loss < baseline", {**NOW, "log_loss": 0.1}, "v1", BEFORE).reason == (
        "there is no log_loss of the baseline"
    )
