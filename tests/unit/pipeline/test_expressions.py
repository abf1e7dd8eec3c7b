"""CEL in pipelines: what references become, and what errors say."""

from __future__ import annotations

import pytest

from penstock.errors import InvalidArgument
from services.pipeline.expressions import evaluate, holds, resolve

VARIABLES = {"event": {"data": {"n": 3, "name": "digits", "share": 0.5}}}


def test_a_reference_alone_keeps_its_type_and_within_text_becomes_text() -> None:
    settings = {"a": "${event.data.n}", "b": ["v${event.data.n} of ${event.data.name}", 7], "c": {"d": "plain"}}
    assert resolve(settings, VARIABLES, "x") == {"a": 3, "b": ["v3 of digits", 7], "c": {"d": "plain"}}


def test_an_empty_condition_holds() -> None:
    assert holds("", VARIABLES, "x")
    assert not holds("event.data.n > 3", VARIABLES, "x")


@pytest.mark.parametrize("expression", ["event.data.nope", "1 / 0", "event.data.share + 1"])
def test_what_cannot_be_evaluated_names_the_field(expression: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        evaluate(expression, VARIABLES, "steps.a.if")
    assert caught.value.violations[0].field == "steps.a.if"


def test_a_condition_that_is_no_boolean_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="neither true nor false"):
        holds("event.data.n", VARIABLES, "x")
