"""Runs an ONNX model with onnxruntime: numpy in, numpy out, and its signature in KServe terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from penstock.algorithms.columns import Column, MissingColumn, NumberColumn, TextColumn, UnusableColumn
from penstock.algorithms.tensors import Item, Tensor, TensorSpec
from penstock.errors import InvalidArgument

Array = npt.NDArray[Any]

# onnxruntime's element type -> KServe datatype, numpy type
_TYPES: dict[str, tuple[str, Any]] = {
    "tensor(float16)": ("FP16", np.float16),
    "tensor(float)": ("FP32", np.float32),
    "tensor(double)": ("FP64", np.float64),
    "tensor(int8)": ("INT8", np.int8),
    "tensor(int16)": ("INT16", np.int16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(uint16)": ("UINT16", np.uint16),
    "tensor(uint32)": ("UINT32", np.uint32),
    "tensor(uint64)": ("UINT64", np.uint64),
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(string)": ("BYTES", np.object_),
}
_NUMPY = dict(_TYPES.values())
_BATCH = 4096
_NO_MISSING = "has missing values, which an input of this type cannot take"


class OnnxModel:
    """A loaded model. `threads` bounds what one prediction uses. InvalidArgument if onnxruntime refuses the bytes."""

    def __init__(self, model: bytes | Path, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        content = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no base of their own
            raise InvalidArgument(f"model.onnx does not load: {error}", field="model.onnx") from error
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name, for inputs of one batch size (first dimension); large batches go in pieces."""
        rows = len(next(iter(inputs.values())))
        names = [spec.name for spec in self.outputs]
        pieces = [
            self._session.run(names, {name: value[start : start + _BATCH] for name, value in inputs.items()})
            for start in range(0, max(rows, 1), _BATCH)
        ]
        return {name: np.concatenate([piece[i] for piece in pieces]) for i, name in enumerate(names)}


def columns_to_inputs(specs: Sequence[TensorSpec], columns: Mapping[str, Column]) -> dict[str, Array]:
    """A model's inputs from decoded fields of the same names. InvalidArgument naming a field that does not fit."""
    return {spec.name: _input(spec, columns[spec.name]) for spec in specs}


def to_tensor(spec: TensorSpec, values: Array) -> Tensor:
    """A batch as a KServe tensor."""
    flat: list[Item] = values.reshape(-1).tolist()
    return Tensor(spec.name, spec.datatype, tuple(int(size) for size in values.shape), tuple(flat))


def to_array(tensor: Tensor) -> Array:
    """A KServe tensor as a batch."""
    return np.array(tensor.data, dtype=_NUMPY[tensor.datatype]).reshape(tensor.shape)


def _spec(node: Any) -> TensorSpec:
    if node.type not in _TYPES:
        raise InvalidArgument(
            f"model.onnx: {node.name} is a {node.type}, not a tensor; export with zipmap off", field="model.onnx"
        )
    shape = [size if isinstance(size, int) else -1 for size in node.shape]
    if not shape or shape[0] != -1:
        raise InvalidArgument(
            f"model.onnx: {node.name} has shape {node.shape}; its first dimension must be dynamic: the batch",
            field="model.onnx",
        )
    return TensorSpec(node.name, _TYPES[node.type][0], tuple(shape))


def _input(spec: TensorSpec, column: Column) -> Array:
    if isinstance(column, MissingColumn):
        return _missing(spec, column)
    if spec.datatype == "BYTES" and isinstance(column, TextColumn) and spec.shape in ((-1, 1), (-1,)):
        return column.values.reshape(-1, *spec.shape[1:])
    if spec.datatype != "BYTES" and isinstance(column, NumberColumn):
        values = column.values
        missing = np.isnan(values)
        if spec.datatype not in ("FP16", "FP32", "FP64") and missing.any():
            raise _unfit(spec, _NO_MISSING)
        if spec.shape == (-1,) and column.shape == (1,):
            values = values[:, 0]
        fits = len(values.shape) == len(spec.shape) and all(
            wanted in (-1, size) for size, wanted in zip(values.shape[1:], spec.shape[1:], strict=True)
        )
        if fits:
            return values.astype(_NUMPY[spec.datatype])
        raise _unfit(spec, f"has values of shape {list(column.shape)}")
    if isinstance(column, UnusableColumn):
        raise InvalidArgument(f"field {spec.name!r} does not fit the model: {column.reason}", field=spec.name)
    raise _unfit(spec, "holds text" if isinstance(column, TextColumn) else "holds numbers")


def _missing(spec: TensorSpec, column: MissingColumn) -> Array:
    shape = (column.records, *spec.shape[1:])
    if -1 in shape or spec.datatype not in ("FP16", "FP32", "FP64", "BYTES"):
        raise _unfit(spec, _NO_MISSING)
    return np.full(shape, "" if spec.datatype == "BYTES" else np.nan, dtype=_NUMPY[spec.datatype])


def _unfit(spec: TensorSpec, problem: str) -> InvalidArgument:
    return InvalidArgument(
        f"field {spec.name!r} does not fit the model's input ({spec.datatype} {list(spec.shape)}): it {problem}",
        field=spec.name,
    )
