"""Pipelines that could never work are refused, with the field that is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock.errors import InvalidArgument
from services.pipeline.commands import validate
from services.pipeline.model import Pipeline, Step, Trigger
from tests.support.pipeline_platform import COMMITTED, TRAIN, pipeline


def refused(value: Pipeline) -> tuple[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        validate(value)
    (violation,) = caught.value.violations
    return violation.field, caught.value.message


def with_step(**changes: Any) -> Pipeline:
    return pipeline("p", replace(TRAIN, **changes))


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (pipeline("UPPER"), "pipeline.name"),
        (pipeline(trigger=Trigger("")), "pipeline.trigger.event"),
        (pipeline(trigger=Trigger("dev.penstock.dataset.version.comitted.v1")), "pipeline.trigger.event"),
        (pipeline(trigger=Trigger(COMMITTED, "event.data.x ==")), "pipeline.trigger.filter"),
        (pipeline(trigger=Trigger(COMMITTED, "evnt.data.x == 1")), "pipeline.trigger.filter"),
        (pipeline(trigger=Trigger(COMMITTED, quiet=2.0)), "pipeline.trigger.debounce.max_wait"),
        (pipeline(trigger=Trigger(COMMITTED, quiet=2.0, max_wait=1.0)), "pipeline.trigger.debounce.max_wait"),
        (pipeline(trigger=Trigger(COMMITTED, quiet=-1.0, max_wait=1.0)), "pipeline.trigger.debounce.quiet"),
        (replace(pipeline(), steps=()), "pipeline.steps"),
        (pipeline(max_recurrence=-1), "pipeline.max_recurrence"),
        (with_step(id="a-b"), "steps[0].id"),
        (with_step(action="fly"), "steps[0].action"),
        (with_step(settings={"dataset": "digits"}), "steps[0].train.algorithm"),
        (with_step(settings={**TRAIN.settings, "epocs": 3}), "steps[0].train.epocs"),
        (with_step(settings={**TRAIN.settings, "dataset": "${event.data.}"}), "steps[0].dataset"),
        (with_step(settings={**TRAIN.settings, "dataset": "${later.x}"}), "steps[0].dataset"),
        (with_step(settings={**TRAIN.settings, "parameters": {"a": ["${steps.b.c}"]}}), "steps[0].parameters.a[0]"),
        (with_step(condition="steps.train.metrics.accuracy > 0.9"), "steps[0].if"),
        (with_step(condition="steps['nope'].x == 1"), "steps[0].if"),
        (pipeline("p", TRAIN, TRAIN), "steps[1].id"),
    ],
)
def test_the_field_that_is_wrong_is_named(value: Pipeline, field: str) -> None:
    assert refused(value)[0] == field


def test_the_message_says_what_there_is() -> None:
    assert "train, tune, evaluate, deploy" in refused(with_step(action="fly"))[1]
    assert "algorithm, dataset, model, parameters" in refused(with_step(settings={**TRAIN.settings, "x": 1}))[1]
    assert (
        "before it come train"
        in refused(pipeline("p", TRAIN, replace(TRAIN, id="second", condition="steps.third.x == 1")))[1]
    )


def test_steps_may_refer_to_earlier_ones_whatever_their_names_look_like() -> None:
    first = replace(TRAIN, id="train_big")
    settings = {"model": "${steps.train_big.model_version}", "dataset": "h", "rule": "x ${steps.trainTwo.run}"}
    value = pipeline("p", first, replace(TRAIN, id="trainTwo"), Step("judge", "evaluate", settings))
    assert validate(value).steps == value.steps


def test_defaults_are_filled_in_and_own_types_shortened() -> None:
    value = validate(pipeline(trigger=Trigger(f"dev.penstock.{COMMITTED}.v1"), max_recurrence=0))
    assert (value.trigger.event, value.max_recurrence) == (COMMITTED, 3)
    assert validate(pipeline(trigger=Trigger("com.plant.camera"))).trigger.event == "com.plant.camera"
