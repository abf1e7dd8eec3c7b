"""Two models to serve: one that does nothing, so that all else shows, and one that computes for about 2 ms a row."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

NAME = "bench"  # of the endpoint
WIDTH = 4
_HIDDEN = 4096
_ROUNDS = 50  # of what is timed to find out how much is 2 ms
INPUT = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 0.4]}


def trivial_model(folder: Path) -> Path:
    """Answers its input."""
    return _save(folder, [helper.make_node("Identity", ["x"], ["y"])], [], WIDTH)


def working_model(folder: Path, seconds: float = 0.002) -> Path:
    """Computes for about `seconds` a row on one thread of this machine; more rows take as many times as long."""
    probe = _timed(_working(folder / "probe", _ROUNDS))
    return _working(folder / "model", max(1, round(_ROUNDS * seconds / probe)))


def _working(folder: Path, rounds: int) -> Path:
    """x times a matrix, `rounds` times the hyperbolic tangent of it, and the mean."""
    spread = helper.make_tensor("w", TensorProto.FLOAT, [WIDTH, _HIDDEN], np.full(WIDTH * _HIDDEN, 0.1).tolist())
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h0"])]
    nodes += [helper.make_node("Tanh", [f"h{i}"], [f"h{i + 1}"]) for i in range(rounds)]
    nodes.append(helper.make_node("ReduceMean", [f"h{rounds}"], ["y"], axes=[1], keepdims=1))
    return _save(folder, nodes, [spread], 1)


def _timed(folder: Path) -> float:
    """The median of some runs with one row, in seconds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    feed = {"x": np.array([INPUT["data"]], dtype=np.float32)}
    took = []
    for _ in range(30):
        began = time.perf_counter()
        session.run(None, feed)
        took.append(time.perf_counter() - began)
    return sorted(took)[len(took) // 2]


def _save(folder: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], width: int) -> Path:
    folder.mkdir(parents=True)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(nodes, "bench", [x], [y], weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx"
    )
    signature = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, WIDTH]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, width]}],
    }
    (folder / "model.json").write_text(json.dumps({"task": "bench", "signature": signature}), encoding="utf-8")
    return folder
