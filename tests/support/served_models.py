"""Model directories that tell themselves apart: y = factor * x, with examples of it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from penstock.algorithms.model_format import file_digest


def scaling_model(folder: Path, factor: float, *, examples_of: float | None = None, delay: int = 0) -> Path:
    """A model that multiplies by `factor`, while its examples say `examples_of` (default: the same).

    `delay` makes it slow: that many multiplications of 300 x 300 matrices for each request.
    """
    folder.mkdir(parents=True)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    constants = [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])]
    nodes = [helper.make_node("Mul", ["x", "factor"], ["scaled"])]
    nodes += _slow(delay, constants)
    nodes.append(helper.make_node("Add", ["scaled", "nothing"], ["y"]) if delay else _same("scaled", "y"))
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


def _same(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Identity", [source], [target])


def _slow(rounds: int, constants: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Work that depends on the input, and whose result `nothing` is 0."""
    if not rounds:
        return []
    size = 300
    constants += [
        helper.make_tensor("zeros", TensorProto.FLOAT, [size, size], [0.0] * size * size),
        helper.make_tensor("all", TensorProto.INT64, [2], [0, 1]),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=1),
        helper.make_node("Add", ["zeros", "sum"], ["matrix"]),
        helper.make_node("MatMul", ["zeros", "matrix"], ["m0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"m{n}", "matrix"], [f"m{n + 1}"]) for n in range(rounds)]
    nodes.append(helper.make_node("ReduceSum", [f"m{rounds}", "all"], ["nothing"], keepdims=0))
    return nodes
