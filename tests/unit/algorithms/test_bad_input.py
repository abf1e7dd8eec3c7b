"""Data and parameters that no model can be made of end with one clear line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.algorithms.conftest import GOOD, Job


@pytest.mark.parametrize(
    ("records", "parameters", "says"),
    [
        ([], {}, "missing in every record"),
        ([{**r, "label": None} for r in GOOD], {}, "label field 'label' is missing in every record"),
        ([{**r, "label": 7} for r in GOOD], {}, "is 7 in all 20 records; at least 2 different labels"),
        (GOOD[:1], {}, "in one record only"),
        ([{**r, "label": i / 2} for i, r in enumerate(GOOD)], {}, "record 'r0001': 0.5 is not a whole number"),
        ([{**r, "label": [1]} for r in GOOD], {}, "a label is text or a whole number"),
        ([{"label": r["label"]} for r in GOOD], {}, "no field is left to learn from"),
        ([{**r, "x": 1e300} for r in GOOD], {}, "field 'x' of record 'r0000' is infinite or beyond single precision"),
        ([{**r, "probabilities": 1.0} for r in GOOD], {}, "field 'probabilities' has the name of the model's output"),
        (
            GOOD,
            {"label": "species"},
            "parameters.label: the dataset has no field 'species'; its fields are x, t, label",
        ),
        (GOOD, {"features": ["y"]}, "parameters.features: the dataset has no field 'y'"),
        (GOOD, {"features": ["label"]}, "parameters.features: 'label' is the label"),
        (
            [{**r, "v": [1.0] * (1 + i % 2)} for i, r in enumerate(GOOD)],
            {"features": ["v"]},
            "parameters.features: 'v' cannot be used: its lists have different lengths (1, 2",
        ),
        (GOOD, {"C": -1}, "parameters.C: -1 is below the minimum 1e-08"),
        (GOOD, {"depth": 3}, "parameters.depth: unknown parameter; known are C, max_iter"),
    ],
)
def test_bad_input_ends_with_one_clear_line(
    job: Job, records: list[dict[str, Any]], parameters: dict[str, Any], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = records or [{"x": None, "label": None}]
    assert job.give("train", given).run("logistic-regression", **parameters) == 2
    error = capfd.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not job.model.exists()


@pytest.mark.parametrize(
    ("field", "values", "says"),
    [
        ("x", [1, "two"], """field 'x' mixes numbers (1 in record 'r0000') and text ("two" in record 'r0001')"""),
        ("label", [1, "b"], "label field 'label' mixes text ('b' in record 'r0001') and numbers (1 in record 'r0000')"),
        ("label", [{"a": 1}, 2], "label field 'label' of record 'r0000': {'a': 1} is neither text nor a whole number"),
    ],
)
def test_mixed_types_name_the_records(
    job: Job, field: str, values: list[Any], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    records = [{**record, field: values[index % 2]} for index, record in enumerate(GOOD)]
    assert job.give("train", records, json_columns=[field]).run("mlp") == 2
    assert says in capfd.readouterr().err


def test_an_input_without_partitions_is_an_error(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    (job.root / "inputs" / "train").mkdir(parents=True)
    assert job.run("mlp") == 2
    assert "the input 'train' has no Parquet partitions" in capfd.readouterr().err


def test_an_unknown_algorithm_lists_the_known_ones(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    assert job.run("perceptron") == 2
    assert "there are logistic-regression, gradient-boosting, mlp" in capfd.readouterr().err
