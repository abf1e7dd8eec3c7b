"""Search spaces that cannot be: each refused by its field, with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import InvalidArgument
from services.tuning.model import Range
from services.tuning.space import check_study, lowest
from tests.unit.tuning.test_model import study

X = Range("x", "float", 0, 1)
MLP = {"code": {"algorithm": "mlp"}}


@pytest.mark.parametrize(
    ("field", "words", "change"),
    [
        ("study.space", "empty", {"space": ()}),
        ("study.space[0].float.low", "above high", {"space": (Range("x", "float", 2, 1),)}),
        ("study.space[0].float.low", "logarithmic", {"space": (Range("x", "float", 0, 1, log=True),)}),
        ("study.space[0].int.low", "logarithmic", {"space": (Range("x", "int", -1, 8, log=True),)}),
        ("study.space[0].float.low", "finite", {"space": (Range("x", "float", float("nan"), 1),)}),
        ("study.space[0].categorical.values", "values", {"space": (Range("x", "categorical"),)}),
        ("study.space[0].categorical.values", "twice", {"space": (Range("x", "categorical", choices=("a", "a")),)}),
        ("study.space[0].categorical.values", "texts", {"space": (Range("x", "categorical", choices=([1],)),)}),
        (
            "study.space[0].categorical.values",
            "NaN",
            {"space": (Range("x", "categorical", choices=(float("nan"),)),)},
        ),
        ("study.space[0]", "range", {"space": (Range("x", ""),)}),
        ("study.space[0].name", "name", {"space": (Range("", "float", 0, 1),)}),
        ("study.space[1].name", "twice", {"space": (X, X)}),
        ("study.space[0].name", "both fixed", {"template": {"parameters": {"x": 1}}}),
        ("study.space[0].name", "unknown parameter", {"template": MLP}),
        ("study.space[0].float", "whole numbers", {"template": MLP, "space": (Range("epochs", "float", 1, 9),)}),
        ("study.space[0].int", "minimum", {"template": MLP, "space": (Range("epochs", "int", 0, 9),)}),
        (
            "study.space[0].categorical",
            "none of",
            {"template": MLP, "space": (Range("activation", "categorical", choices=("relu", "gelu")),)},
        ),
        ("study.objective.metric", "metric", {"metric": ""}),
        ("study.max_trials", "trials", {"max_trials": 0}),
        ("study.max_trials", "trials", {"max_trials": 10_001}),
        ("study.parallelism", "at once", {"parallelism": -1}),
        ("study.model", "id", {"model": "No Id"}),
    ],
)
def test_a_study_that_cannot_be_is_refused_by_its_field(field: str, words: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_study(study(**change))
    assert [v.field for v in refused.value.violations] == [field]
    assert words in refused.value.violations[0].description


def test_all_complaints_come_at_once() -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_study(study(space=(Range("x", "float", 2, 1),), metric="", max_trials=0))
    assert len(refused.value.violations) == 3


def test_a_good_space_passes() -> None:
    space = (
        Range("learning_rate", "float", 1e-4, 1e-1, log=True),
        Range("hidden_units", "int", 8, 8),
        Range("activation", "categorical", choices=("relu", "tanh")),
    )
    check_study(study(template={**MLP, "parameters": {"epochs": 5}}, space=space))
    assert lowest(space) == {"learning_rate": 1e-4, "hidden_units": 8, "activation": "relu"}


def test_true_and_one_are_different_categories() -> None:
    check_study(study(space=(Range("x", "categorical", choices=(True, 1, "1", 1.5)),)))
