"""model.json: what is refused, what a request looks like, and how an answer is compared."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from penstock.algorithms.model_format import ModelCard
from penstock.algorithms.model_writer import write_model
from penstock.errors import InvalidArgument


def doubling() -> bytes:
    """An ONNX model made by hand, as own code may export it: y = x + x."""
    shape: list[str | int | None] = ["batch", 2]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    examples = {"x": np.array([[1, 2], [3, 4], [5, np.nan]], dtype=np.float32)}
    write_model(tmp_path, doubling(), examples, task="regression", framework={"name": "by hand"})
    return tmp_path


def document(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "model.json").read_text())
    return loaded


def test_a_written_card_reads_back(folder: Path) -> None:
    card = ModelCard.load(folder)
    assert card.framework["name"] == "by hand"
    assert [spec.to_json() for spec in card.outputs] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
    assert card.example_inputs[0].shape == (8, 2)
    assert card.example_outputs[0].data[:4] == (2.0, 4.0, 6.0, 8.0)
    assert json.dumps(card.to_json()) == json.dumps(document(folder))
    assert document(folder)["examples"]["inputs"][0]["data"][5] is None
    assert math.isnan(card.example_request()["inputs"][0]["data"][5])


def change(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(card: dict[str, Any]) -> None:
        place: Any = card
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (change("task", to=None), "task: needs a string"),
        (change("schema_version", to=9), "schema_version: this release reads 1"),
        (change("signature", to=[]), "signature: needs an object"),
        (change("signature", "inputs", to=[]), "signature.inputs: needs a list of tensors"),
        (change("signature", "inputs", 0, "datatype", to="FLOAT"), "signature.inputs[0]: datatype 'FLOAT' is none of"),
        (change("signature", "inputs", 0, "shape", to=[1, 2]), "first dimension is the batch and must be -1"),
        (change("signature", "inputs", 0, "shape", to=[-1, 0]), "a dimension is a positive number, or -1"),
        (change("signature", "outputs", 0, "name", to=""), "signature.outputs[0]: needs a name"),
        (change("labels", to=["a", 1]), "labels: needs a list of different strings"),
        (change("task", to="classification"), "labels: a classification model lists its classes"),
        (change("tolerance", to="small"), "tolerance: needs a number"),
        (change("digests", to={}), "digests: needs the digest of model.onnx"),
        (change("digests", "../evil", to="sha256:" + "0" * 64), "digests.../evil: needs a relative file name"),
        (change("examples", to=None), "examples: needs an object"),
        (change("examples", "inputs", 0, "name", to="z"), "examples.inputs: needs exactly x"),
        (change("examples", "inputs", 0, "data", to=[1.0]), "examples.inputs[0]: has 1 values, which its shape [8, 2]"),
        (change("examples", "inputs", 0, "data", 0, to="one"), "'one' is not of type FP32"),
        (change("examples", "outputs", 0, "datatype", to="FP64"), "examples.outputs.y: has datatype FP64"),
        (change("signature", "inputs", 0, "shape", to=[-1, 3]), "examples.inputs.x: has shape [8, 2], the signature"),
    ],
)
def test_a_wrong_card_is_refused_saying_where(folder: Path, edit: Callable[[dict[str, Any]], None], says: str) -> None:
    wrong = copy.deepcopy(document(folder))
    edit(wrong)
    with pytest.raises(InvalidArgument) as caught:
        ModelCard.parse(json.dumps(wrong))
    assert says in caught.value.message


def test_too_few_examples_are_refused(folder: Path) -> None:
    wrong = document(folder)
    for tensor in (*wrong["examples"]["inputs"], *wrong["examples"]["outputs"]):
        tensor.update(shape=[7, 2], data=tensor["data"][:14])
    with pytest.raises(InvalidArgument, match="needs one batch of at least 8"):
        ModelCard.parse(json.dumps(wrong))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "null"])
def test_what_is_no_card_at_all_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"model\.json"):
        ModelCard.parse(text)


def test_files_must_be_there_regular_and_unchanged(folder: Path) -> None:
    model = folder / "model.onnx"
    moved = folder / "moved"
    model.rename(moved)
    with pytest.raises(InvalidArgument, match="no such regular file"):
        ModelCard.load(folder)
    model.symlink_to(moved)
    with pytest.raises(InvalidArgument, match="no such regular file"):
        ModelCard.load(folder)
    assert ModelCard.load(folder, check_files=False).task == "regression"
    (folder / "model.json").unlink()
    with pytest.raises(InvalidArgument, match=r"has no model\.json"):
        ModelCard.load(folder)


def card_of(*weights: str) -> ModelCard:
    digests = dict.fromkeys(("model.onnx", *weights), "sha256:" + "0" * 64)
    return ModelCard("regression", (), (), (), {}, digests, (), (), 0.0)


def test_a_model_directory_may_hold_the_model_and_its_weights() -> None:
    weights = ("model.onnx.data", "model.onnx_data", "part/1.bin", "w.weights")
    card_of(*weights).check_names(["model.onnx", "model.json", *weights])


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "pickle5.py",
        "a/b.pyc",
        "w.so",
        "w.cpython-311-x86_64-linux-gnu.so",
        "x.pth",
        "readme",
        "w.bin.py",
    ],
)
def test_other_files_in_it_are_refused_listed_or_not(name: str) -> None:
    for card in (card_of(), card_of(name)):
        with pytest.raises(InvalidArgument, match=rf"^'{name}' has no place in a model directory") as caught:
            card.check_names(["model.onnx", "model.json", name])
        assert caught.value.violations[0].field == name
    with pytest.raises(InvalidArgument, match=r"^'w\.bin' has no place"):
        card_of().check_names(["model.onnx", "model.json", "w.bin"])  # whose digest the card does not give


def answer(folder: Path) -> dict[str, Any]:
    output: dict[str, Any] = copy.deepcopy(ModelCard.load(folder).to_json()["examples"]["outputs"][0])
    return output


def test_an_answer_within_the_tolerance_agrees(folder: Path) -> None:
    near = answer(folder)
    near["data"] = [value if value is None else value * 1.0005 for value in near["data"]]
    assert ModelCard.load(folder).differences([near]) == []


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (change("data", 3, to=8.1), "output y of example 1: 8.1 instead of 8.0"),
        (change("data", 5, to=1.0), "output y of example 2: 1.0 instead of nan"),
        (change("data", 0, to=None), "output y of example 0: nan instead of 2.0"),
        (change("name", to="z"), "output y is missing"),
        (change("datatype", to="FP64"), "output y is FP64 [8, 2], not FP32 [8, 2]"),
        (change("data", to=[]), "has 0 values, which its shape [8, 2] does not hold"),
    ],
)
def test_a_wrong_answer_is_found(folder: Path, edit: Callable[[dict[str, Any]], None], says: str) -> None:
    wrong = answer(folder)
    edit(wrong)
    found = ModelCard.load(folder).differences([wrong])
    assert len(found) == 1
    assert says in found[0]


def test_at_most_five_differences_are_told(folder: Path) -> None:
    wrong = answer(folder)
    wrong["data"] = [0.0] * 16
    assert len(ModelCard.load(folder).differences([wrong])) == 5


def card_with(inputs: list[dict[str, Any]], folder: Path) -> ModelCard:
    wide = document(folder)
    wide["signature"]["inputs"] = inputs
    wide["examples"]["inputs"] = [
        {
            **spec,
            "shape": [8, *spec["shape"][1:]],
            "data": [("a" if spec["datatype"] == "BYTES" else 0)] * (8 * math.prod(spec["shape"][1:])),
        }
        for spec in inputs
    ]
    return ModelCard.parse(json.dumps(wide))


@pytest.fixture
def card(folder: Path) -> ModelCard:
    kinds = {"size": ("FP32", [-1, 1]), "kind": ("BYTES", [-1, 1]), "image": ("FP32", [-1, 2, 2]), "n": ("INT8", [-1])}
    return card_with([{"name": name, "datatype": d, "shape": s} for name, (d, s) in kinds.items()], folder)


def test_records_become_a_kserve_request(card: ModelCard) -> None:
    request = card.request(
        [
            {"size": 1, "kind": "b", "image": [[1, 2], [3, 4]], "n": 5, "unused": "x"},
            {"size": True, "image": [1, 2, 3, 4], "n": -1.0},
        ]
    )
    by_name = {tensor["name"]: tensor for tensor in request["inputs"]}
    assert by_name["size"] == {"name": "size", "datatype": "FP32", "shape": [2, 1], "data": [1.0, 1.0]}
    assert by_name["kind"]["data"] == ["b", ""]
    assert (by_name["image"]["shape"], by_name["image"]["data"][4:]) == ([2, 2, 2], [1.0, 2.0, 3.0, 4.0])
    assert by_name["n"] == {"name": "n", "datatype": "INT8", "shape": [2], "data": [5, -1]}
    assert math.isnan(card.request([{"n": 1, "image": [0] * 4}])["inputs"][0]["data"][0])


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"n": 1, "size": "big"}, "records[0].size: 'big' is not of type FP32"),
        ({"n": 1, "size": 10**400}, "is not of type FP32"),
        ({"n": 1, "kind": 3}, "records[0].kind: 3 is not of type BYTES"),
        ({"n": 300}, "records[0].n: 300 is not of type INT8"),
        ({"size": 1}, "records[0].n: is missing, and an input of type INT8 has no value for that"),
        ({"n": 1, "image": [1, 2, 3]}, "records[0].image: has 3 values, the model takes 4"),
    ],
)
def test_a_record_that_does_not_fit_is_named(card: ModelCard, record: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        card.request([record])
    assert says in caught.value.message


def test_own_models_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    x = np.zeros((3, 2), dtype=np.float32)
    with pytest.raises(InvalidArgument, match=r"model\.onnx does not load"):
        write_model(tmp_path, b"not a model", {"x": x}, task="regression")
    with pytest.raises(InvalidArgument, match="examples: needs exactly the model's inputs x"):
        write_model(tmp_path, doubling(), {"z": x}, task="regression")
    fixed = onnx.load_from_string(doubling())
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(InvalidArgument, match="its first dimension must be dynamic"):
        write_model(tmp_path, fixed.SerializeToString(), {"x": x}, task="regression")
    assert not (tmp_path / "model.json").exists()
