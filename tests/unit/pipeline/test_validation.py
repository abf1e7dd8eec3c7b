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


def with_setting(action: str, name: str, value: Any) -> Pipeline:
    settings = {
        "train": TRAIN.settings,
        "tune": {**TRAIN.settings, "space": {"epochs": {"int": [1, 9]}}, "objective": {"metric": "accuracy"}},
        "evaluate": {"model": "digits", "dataset": "holdout@2"},
        "deploy": {"endpoint": "live", "model": "digits@1"},
    }[action]
    return pipeline("p", Step("a", action, {**settings, name: value}))


def with_second(reference: str) -> Pipeline:
    return pipeline("p", TRAIN, Step("serve", "deploy", {"endpoint": "live", "model": reference}))


def with_step(**changes: Any) -> Pipeline:
    return pipeline("p", replace(TRAIN, **changes))


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (pipeline("UPPER"), "pipeline.name"),
        (pipeline(trigger=Trigger("")), "on.event"),
        (pipeline(trigger=Trigger("dev.penstock.dataset.version.comitted.v1")), "on.event"),
        (pipeline(trigger=Trigger("dataset.version.comitted")), "on.event"),
        (pipeline(trigger=Trigger("training")), "on.event"),
        (pipeline(trigger=Trigger(COMMITTED, "1 + 1")), "on.filter"),
        (with_step(condition="'true'"), "steps[0].if"),
        (pipeline(trigger=Trigger(COMMITTED, "event.data.x ==")), "on.filter"),
        (pipeline(trigger=Trigger(COMMITTED, "evnt.data.x == 1")), "on.filter"),
        (pipeline(trigger=Trigger(COMMITTED, quiet=2.0)), "on.debounce.max_wait"),
        (pipeline(trigger=Trigger(COMMITTED, quiet=2.0, max_wait=1.0)), "on.debounce.max_wait"),
        (pipeline(trigger=Trigger(COMMITTED, quiet=-1.0, max_wait=1.0)), "on.debounce.quiet"),
        (replace(pipeline(), steps=()), "pipeline.steps"),
        (pipeline(max_recurrence=-1), "pipeline.max_recurrence"),
        (with_step(id="a-b"), "steps[0].id"),
        (with_step(action="fly"), "steps[0].action"),
        (with_step(settings={"dataset": "digits"}), "steps[0].train.algorithm"),
        (with_step(settings={**TRAIN.settings, "epocs": 3}), "steps[0].train.epocs"),
        (with_step(settings={**TRAIN.settings, "dataset": "${event.data.}"}), "steps[0].train.dataset"),
        (with_step(settings={**TRAIN.settings, "dataset": "${later.x}"}), "steps[0].train.dataset"),
        (
            with_step(settings={**TRAIN.settings, "parameters": {"features": ["${steps.b.c}"]}}),
            "steps[0].train.parameters.features[0]",
        ),
        (with_step(condition="steps.train.metrics.accuracy > 0.9"), "steps[0].if"),
        (with_step(condition="steps['nope'].x == 1"), "steps[0].if"),
        (pipeline("p", TRAIN, TRAIN), "steps[1].id"),
    ],
)
def test_the_field_that_is_wrong_is_named(value: Pipeline, field: str) -> None:
    assert refused(value)[0] == field


@pytest.mark.parametrize(
    ("action", "name", "value", "within"),
    [
        ("train", "algorithm", "logreg", ""),
        ("train", "algorithm", "evaluate-classification", ""),
        ("train", "parameters", {"CC": 1.0}, ".CC"),
        ("train", "parameters", {"CC": "${event.data.c}"}, ".CC"),
        ("train", "parameters", {"epochs": "many"}, ".epochs"),
        ("train", "parameters", "epochs", ""),
        ("train", "dataset", "Digits", ""),
        ("train", "dataset", "digits@one", ""),
        ("train", "dataset", "projects/vision/models/digits/versions/1", ""),
        ("train", "dataset", "${event.data.version", ""),
        ("train", "dataset", "${event.data.dataset}@${event.data.number", ""),
        ("train", "model", "T E", ""),
        ("tune", "space", {"CC": {"float": [0.0, 1.0]}}, ".CC"),
        ("tune", "space", {"epochs": [1, 2]}, ".epochs"),
        ("tune", "objective", {"metric": "accuracy", "direction": "up"}, ""),
        ("tune", "trials", "few", ""),
        ("evaluate", "rule", "accuracy >=", ""),
        ("evaluate", "rule", "acuracy >= 0.9", ""),
        ("evaluate", "baseline", "digits@one", ""),
        ("deploy", "endpoint", "T E", ""),
        ("deploy", "model", "digits@0", ""),
        ("deploy", "steps", [50.0], ""),
        ("deploy", "steps", [50.0, 20.0, 100.0], ""),
        ("deploy", "steps", [0.5, 100.0], "[0]"),
        ("deploy", "steps", "2020-01-01", ""),
        ("deploy", "hold", "x", ""),
    ],
)
def test_a_setting_that_can_never_work_is_named(action: str, name: str, value: Any, within: str) -> None:
    assert refused(with_setting(action, name, value))[0] == f"steps[0].{action}.{name}{within}"


@pytest.mark.parametrize(
    ("action", "name", "value"),
    [
        ("train", "algorithm", "${event.data.algorithm}"),
        ("train", "parameters", {"epochs": "${event.data.epochs}"}),
        ("train", "parameters", "${event.data.parameters}"),
        ("train", "dataset", "digits@${event.data.number}"),
        ("tune", "trials", 8.0),
        ("evaluate", "baseline", "live"),
        ("evaluate", "rule", "accuracy >= ${event.data.least}"),
        ("deploy", "endpoint", "projects/vision/endpoints/live"),
        ("deploy", "steps", [10.0, 100.0]),
        ("deploy", "steps", ["${event.data.first}", 100.0]),
        ("deploy", "hold", "2s"),
    ],
)
def test_a_setting_that_may_work_is_taken(action: str, name: str, value: Any) -> None:
    value = with_setting(action, name, value)
    assert validate(value).steps == value.steps


@pytest.mark.parametrize("reference", ["${steps.train.model_versin}", "x${steps['train'][\"modelVersion\"]}"])
def test_an_output_that_a_step_does_not_give_is_refused(reference: str) -> None:
    field, message = refused(with_second(reference))
    assert field == "steps[1].deploy.model"
    assert "it gives metrics, model_version, resource, run, state" in message


@pytest.mark.parametrize("reference", ["steps.train.resource", "string(steps.train.size())", "event.data.steps.x"])
def test_what_is_no_output_is_not_taken_for_one(reference: str) -> None:
    value = with_second(f"${{{reference}}}")
    assert validate(value).steps == value.steps


def test_what_is_not_cel_is_said_once() -> None:
    _, message = refused(pipeline(trigger=Trigger(COMMITTED, "event.data.x ==")))
    assert message.startswith("on.filter: 'event.data.x ==' is not CEL: ERROR")
    assert "Failed to parse" not in message


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
