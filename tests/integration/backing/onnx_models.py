"""Tiny model directories, as a training run leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.external_data_helper
from onnx import TensorProto, helper

Signature = dict[str, list[dict[str, Any]]]
TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "INT64": TensorProto.INT64,
    "INT32": TensorProto.INT32,
    "BOOL": TensorProto.BOOL,
    "BYTES": TensorProto.STRING,
}


def identity_model(folder: Path, datatypes: Sequence[str], width: int = 2) -> Path:
    """One input in_<type> [-1, width] for each datatype, answered unchanged as out_<type>."""
    nodes, inputs, outputs = [], [], []
    signature: Signature = {"inputs": [], "outputs": []}
    for datatype in datatypes:
        source, target = f"in_{datatype}", f"out_{datatype}"
        nodes.append(helper.make_node("Identity", [source], [target]))
        inputs.append(helper.make_tensor_value_info(source, TYPES[datatype], ["batch", width]))
        outputs.append(helper.make_tensor_value_info(target, TYPES[datatype], ["batch", width]))
        for kind, name in (("inputs", source), ("outputs", target)):
            signature[kind].append({"name": name, "datatype": datatype, "shape": [-1, width]})
    return _save(folder, helper.make_graph(nodes, "identity", inputs, outputs), signature)


def reciprocal_table(folder: Path) -> Path:
    """y = table[x]: an index beyond the 3 rows makes onnxruntime fail at run time."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [1.0, 0.5, 0.25])
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph([helper.make_node("Gather", ["table", "x"], ["y"])], "table", [x], [y], [table])
    signature: Signature = {
        "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1, 1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }
    return _save(folder, graph, signature)


def outside_weights(folder: Path) -> Path:
    """y = x times 2, the 2 being in a file of its own."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "xy")
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], np.array([2], dtype="<f4").tobytes(), raw=True)
    onnx.external_data_helper.set_external_data(two, "model.onnx.data")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["y"])], "outside", [x], [y], [two])
    inputs, outputs = ([{"name": name, "datatype": "FP32", "shape": [-1, 1]}] for name in "xy")
    return _save(folder, graph, {"inputs": inputs, "outputs": outputs})


def scalars_model(folder: Path) -> Path:
    """x [-1] answered unchanged as y [-1]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "scalars", [x], [y])
    inputs, outputs = ([{"name": name, "datatype": "FP32", "shape": [-1]}] for name in "xy")
    return _save(folder, graph, {"inputs": inputs, "outputs": outputs})


def _save(folder: Path, graph: onnx.GraphProto, signature: Signature) -> Path:
    folder.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "model.json").write_text(json.dumps({"task": "test", "signature": signature}))
    return folder
