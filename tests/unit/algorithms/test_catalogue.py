"""The catalogue and the parameters, as services and documentation use them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from penstock.algorithms import CATALOGUE, algorithm
from penstock.errors import InvalidArgument, NotFound


def test_the_catalogue_is_json_and_its_defaults_are_valid() -> None:
    for entry in CATALOGUE.values():
        described = json.loads(json.dumps(entry.to_json()))
        defaults = {parameter["name"]: parameter["default"] for parameter in described["parameters"]}
        assert entry.parse(defaults).to_json() == defaults == entry.parse({}).to_json()
        assert all(parameter["description"].endswith(".") for parameter in described["parameters"])


def test_importing_the_catalogue_needs_only_the_base_install() -> None:
    check = (
        "import penstock.algorithms, sys;"
        "heavy = {'numpy', 'sklearn', 'onnx', 'onnxruntime', 'pyarrow', 'grpc'} & set(sys.modules);"
        "raise SystemExit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_values_come_in_their_own_types() -> None:
    parsed = algorithm("mlp").parse({"epochs": 3.0, "alpha": 1, "features": "a, b", "refit": False, "seed": None})
    assert parsed.integer("epochs") == 3
    assert isinstance(parsed.values["epochs"], int)
    assert parsed.number("alpha") == 1.0
    assert parsed.texts("features") == ("a", "b")
    assert not parsed.flag("refit")
    assert parsed.integer("seed") == 0
    assert parsed.text("activation") == "relu"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("epochs", 2.5, "2.5 is not a whole number"),
        ("epochs", "10", '"10" is not a whole number'),
        ("epochs", True, "true is not a whole number"),
        ("epochs", 0, "0 is below the minimum 1"),
        ("learning_rate", 3, "3 is above the maximum 1"),
        ("learning_rate", float("nan"), "nan is not a finite number"),
        ("activation", "swish", "'swish' is none of relu, tanh, logistic"),
        ("refit", "yes", '"yes" is not true or false'),
        ("features", [1], "[1] is not a list of strings"),
        ("label", 1, "1 is not a string"),
        ("layers", 2, "unknown parameter; known are hidden_layers, hidden_units"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: object, says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        algorithm("mlp").parse({name: value})
    assert caught.value.violations[0].field == f"parameters.{name}"
    assert caught.value.message.startswith(f"parameters.{name}: ")
    assert says in caught.value.message


def test_all_wrong_parameters_are_named_at_once() -> None:
    with pytest.raises(InvalidArgument) as caught:
        algorithm("mlp").parse({"epochs": 0, "layers": 2}, prefix="spec.parameters")
    assert [v.field for v in caught.value.violations] == ["spec.parameters.epochs", "spec.parameters.layers"]


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(NotFound, match="there are logistic-regression"):
        algorithm("svm")
    with pytest.raises(InvalidArgument, match="unknown parameter of mlp; known are hidden_layers"):
        algorithm("mlp").parameter("depth")


def test_the_command_lists_the_catalogue_and_explains_itself() -> None:
    command = [sys.executable, "-m", "penstock.algorithms"]
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True, timeout=60)
    assert [entry["name"] for entry in json.loads(listed.stdout)] == list(CATALOGUE)
    bare = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (bare.returncode, bare.stderr.startswith("usage: ")) == (2, True)
