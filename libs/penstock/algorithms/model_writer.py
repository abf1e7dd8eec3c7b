"""Writes a model directory: `model.onnx` and the `model.json` that describes it.

Also for models that were not made by a built-in: own code exports ONNX, calls `write_model` with some example inputs,
and has a directory that can be registered and served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from penstock.algorithms.inference import Array, OnnxModel, to_tensor
from penstock.algorithms.model_format import CARD_FILE, MIN_EXAMPLES, MODEL_FILE, Label, ModelCard, file_digest
from penstock.errors import InvalidArgument

DEFAULT_TOLERANCE = 1e-3


def write_model(
    folder: Path,
    model: bytes,
    examples: Mapping[str, Array],
    *,
    task: str,
    labels: Sequence[Label] = (),
    framework: Mapping[str, Any] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    details: Mapping[str, Any] | None = None,
) -> ModelCard:
    """Write `model` (a serialised ONNX model) and its card into `folder`, which is made if it is not there.

    `examples` are arrays by input name, one batch of at least 8 rows (fewer are repeated); their outputs are computed
    here, by onnxruntime, so that whatever serves the model later can be compared. The signature is the ONNX model's.
    Raises InvalidArgument if the model does not load, cannot be served, or does not take the examples.
    """
    loaded = OnnxModel(model)
    names = [spec.name for spec in loaded.inputs]
    if set(examples) != set(names):
        raise InvalidArgument(f"examples: needs exactly the model's inputs {', '.join(names)}", field="examples")
    batch = {name: _repeated(values) for name, values in examples.items()}
    outputs = loaded.predict(batch)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    path.write_bytes(model)
    card = ModelCard(
        task=task,
        inputs=loaded.inputs,
        outputs=loaded.outputs,
        labels=tuple(labels),
        framework={"onnxruntime": metadata.version("onnxruntime"), **(framework or {})},
        digests={MODEL_FILE: file_digest(path)},
        example_inputs=tuple(to_tensor(spec, batch[spec.name]) for spec in loaded.inputs),
        example_outputs=tuple(to_tensor(spec, outputs[spec.name]) for spec in loaded.outputs),
        tolerance=tolerance,
        details=dict(details or {}),
    )
    text = json.dumps(card.to_json(), allow_nan=False)
    ModelCard.parse(text)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")
    return card


def _repeated(values: Array) -> Array:
    """The rows again and again until there are enough."""
    if not len(values):
        raise InvalidArgument("examples: needs at least one row", field="examples")
    rows = [index % len(values) for index in range(max(len(values), MIN_EXAMPLES))]
    return values[rows]
