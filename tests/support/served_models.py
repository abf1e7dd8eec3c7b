"""Model directories that tell themselves apart: y = factor * x, with examples of it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from penstock.algorithms.model_format import file_digest


def scaling_model(folder: Path, factor: float, *, examples_of: float | None = None, fails_from: int = 0) -> Path:
    """A model that multiplies by `factor`, while its examples (1 to 8) say `examples_of` (default: the same).

    With `fails_from`, an input of that or more is an error at run time, by a look-up beyond a table.
    """
    folder.mkdir(parents=True)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    constants = [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["scaled" if fails_from else "y"])]
    if fails_from:
        constants.append(helper.make_tensor("zeros", TensorProto.FLOAT, [fails_from], [0.0] * fails_from))
        nodes += [
            helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["zeros", "index"], ["zero"]),
            helper.make_node("Add", ["scaled", "zero"], ["y"]),
        ]
    graph = helper.make_graph(nodes, "scaling", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    write_card(folder, factor if examples_of is None else examples_of)
    return folder


def write_card(folder: Path, factor: float) -> None:
    """The model.json of a scaling model, with the digest of the model.onnx that is there."""
    inputs = [float(n) for n in range(1, 9)]
    tensor = {"datatype": "FP32", "shape": [8, 1]}
    spec = {"datatype": "FP32", "shape": [-1, 1]}
    card = {
        "schema_version": 1,
        "task": "regression",
        "signature": {"inputs": [{"name": "x", **spec}], "outputs": [{"name": "y", **spec}]},
        "labels": [],
        "framework": {"name": "test"},
        "digests": {"model.onnx": file_digest(folder / "model.onnx")},
        "examples": {
            "inputs": [{"name": "x", **tensor, "data": inputs}],
            "outputs": [{"name": "y", **tensor, "data": [value * factor for value in inputs]}],
        },
        "tolerance": 1e-5,
    }
    (folder / "model.json").write_text(json.dumps(card))
