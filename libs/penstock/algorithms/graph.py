"""Builds the ONNX model: raw fields in, label and probabilities out.

The preprocessing is part of the graph, so serving needs nothing else and cannot disagree with training. skl2onnx
converts the estimator; the nodes before it do what `penstock.algorithms.features` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from penstock.algorithms.features import Features, Numbers, Text
from penstock.algorithms.labels import Label

# Old enough for the onnxruntime that goes with Triton, new enough for skl2onnx's converters.
OPSET = 17
ML_OPSET = 3
IR_VERSION = 8
_PREFIX = "_penstock/"
_ESTIMATOR = "_estimator/"


class _Graph:
    """Nodes and constants in the order in which they are made; every made value has a fresh name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._made = 0

    def _fresh(self, what: str) -> str:
        self._made += 1
        return f"{_PREFIX}{what}_{self._made}"

    def add(self, op: str, inputs: Sequence[str], *, output: str = "", domain: str = "", **attributes: Any) -> str:
        output = output or self._fresh(op)
        node = helper.make_node(op, list(inputs), [output], name=self._fresh("node"), domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def constant(self, value: npt.NDArray[np.generic]) -> str:
        name = self._fresh("constant")
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def input(self, name: str, element: int, shape: Sequence[int]) -> None:
        self.inputs.append(helper.make_tensor_value_info(name, element, ["batch", *shape]))


def build_model(features: Features, estimator: onnx.ModelProto, classes: Sequence[Label]) -> bytes:
    """Join preprocessing, the converted estimator (features -> probabilities) and the classes into one ONNX model."""
    graph = _Graph()
    blocks = [] if features.numbers is None else _add_numbers(graph, features.numbers)
    blocks.extend(_add_text(graph, text) for text in features.texts)
    converted = compose.add_prefix(estimator, _ESTIMATOR)
    graph.add("Concat", blocks, output=converted.graph.input[0].name, axis=1)
    probabilities = next(o.name for o in converted.graph.output if o.name.endswith("probabilities"))
    graph.nodes.extend(_needed(converted.graph.node, probabilities))
    used = {name for node in graph.nodes for name in node.input}
    graph.constants.extend(constant for constant in converted.graph.initializer if constant.name in used)
    graph.add("Identity", [probabilities], output="probabilities")
    best = graph.add("ArgMax", [probabilities], axis=1, keepdims=1)
    textual = isinstance(classes[0], str)
    names = np.array(list(classes), dtype=np.object_ if textual else np.int64)
    graph.add("Gather", [graph.constant(names), best], output="label", axis=0)
    element = TensorProto.STRING if textual else TensorProto.INT64
    outputs = [
        helper.make_tensor_value_info("label", element, ["batch", 1]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(classes)]),
    ]
    proto = helper.make_graph(graph.nodes, "penstock", graph.inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(proto, opset_imports=opsets, producer_name="penstock", ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _add_numbers(graph: _Graph, numbers: Numbers) -> list[str]:
    flat: list[str] = []
    for field, shape in zip(numbers.fields, numbers.shapes, strict=True):
        graph.input(field, TensorProto.FLOAT, shape)
        flat.append(field if len(shape) == 1 else graph.add("Flatten", [field], axis=1))
    raw = graph.add("Concat", flat, axis=1)
    if not numbers.standardised:
        return [raw]
    missing = graph.add("IsNaN", [raw])
    centred = graph.add("Sub", [raw, graph.constant(numbers.means)])
    scaled = graph.add("Mul", [centred, graph.constant(numbers.inverse_deviations)])
    blocks = [graph.add("Where", [missing, graph.constant(np.array(0, dtype=np.float32)), scaled])]
    if len(numbers.indicated):
        flags = graph.add("Cast", [missing], to=TensorProto.FLOAT)
        blocks.append(graph.add("Gather", [flags, graph.constant(numbers.indicated)], axis=1))
    return blocks


def _add_text(graph: _Graph, text: Text) -> str:
    graph.input(text.field, TensorProto.STRING, (1,))
    width = len(text.categories) + 1
    codes = graph.add(
        "LabelEncoder",
        [text.field],
        domain="ai.onnx.ml",
        keys_strings=list(text.categories),
        values_int64s=list(range(width - 1)),
        default_int64=width - 1,
    )
    off_on = graph.constant(np.array([0, 1], dtype=np.float32))
    hot = graph.add("OneHot", [codes, graph.constant(np.array(width, dtype=np.int64)), off_on], axis=-1)
    return graph.add("Flatten", [hot], axis=1)


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes that `output` depends on: the estimator's own label is replaced by ours."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
