"""Turns a model directory (model.onnx and model.json) into what Triton loads, under the endpoint's name.

Triton's Python backend puts the repository's folders and its working directory on `sys.path`. So the repository holds
our files only; the model's, which its author chose and named, stay where they are, and the backend is told where.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.errors import FailedPrecondition

_BACKEND_MODEL = Path(__file__).parent / "triton_backend" / "model.py"
FILES = "files"  # the parameter that tells the backend where the model's files are
_MOST_ROWS = 2**20  # in one request; Triton wants a number
_TYPES = {
    "BOOL": "TYPE_BOOL",
    "BYTES": "TYPE_STRING",
    **{name: f"TYPE_{name}" for name in ("FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64")},
    **{name: f"TYPE_{name}" for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
}


def write_repository(folder: Path, endpoint_name: str, model_dir: Path) -> Path:
    """Make the model repository `folder` for the model in `model_dir`, replacing one that is there; returns `folder`.

    The model answers to `endpoint_name`, so that clients need not know of revisions. `model_dir` must outlive the
    repository and not be in it. Raises FailedPrecondition if the directory is not a model that can be served.
    """
    # Relative to the repository, which is Triton's working directory.
    config = _config(endpoint_name, _signature(model_dir), os.path.relpath(model_dir, folder))
    draft = folder.parent / f".{folder.name}.{secrets.token_hex(6)}"
    version = draft / endpoint_name / "1"
    try:
        version.mkdir(parents=True)
        shutil.copyfile(_BACKEND_MODEL, version / _BACKEND_MODEL.name)
        (draft / endpoint_name / "config.pbtxt").write_text(config, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _signature(model_dir: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    if not (model_dir / "model.onnx").is_file():
        raise FailedPrecondition("The model has no model.onnx, so Triton cannot serve it.", field="model_version")
    try:
        signature = json.loads((model_dir / "model.json").read_text(encoding="utf-8"))["signature"]
        tensors = [*signature["inputs"], *signature["outputs"]]
        for tensor in tensors:
            _check_tensor(str(tensor["name"]), str(tensor["datatype"]), list(tensor["shape"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            f"The model's model.json has no valid signature ({error!r}): it must list inputs and outputs, each with "
            "name, datatype and shape.",
            field="model_version",
        ) from error
    if not signature["inputs"] or not signature["outputs"]:
        raise FailedPrecondition("The model's signature needs an input and an output.", field="model_version")
    return dict(signature)


def _check_tensor(name: str, datatype: str, shape: list[Any]) -> None:
    if datatype not in _TYPES:
        raise FailedPrecondition(
            f"'{name}' is {datatype}, which is no KServe datatype; it must be one of {', '.join(sorted(_TYPES))}.",
            field="model_version",
        )
    if not shape or any(not isinstance(size, int) or (size < 1 and size != -1) for size in shape):
        raise FailedPrecondition(
            f"'{name}' has the shape {shape}; it needs whole numbers, -1 first for the batch.", field="model_version"
        )


def _config(name: str, signature: Mapping[str, Sequence[Mapping[str, Any]]], files: str) -> str:
    """A config.pbtxt. Where the shapes allow it, Triton hands requests that wait over together.

    They must begin with a batch dimension, and inputs have one more: Triton has no words for a batch of scalars. An
    output of scalars is called [-1, 1] in the metadata, and answered as the [-1] that it is.
    """
    batched = all(tensor["shape"][0] == -1 for kind in ("inputs", "outputs") for tensor in signature[kind])
    batched = batched and all(len(tensor["shape"]) > 1 for tensor in signature["inputs"])
    lines = [f"name: {json.dumps(name)}", 'backend: "python"', f"max_batch_size: {_MOST_ROWS if batched else 0}"]
    if batched:
        lines.append("dynamic_batching { }")
    for kind in ("input", "output"):
        for tensor in signature[f"{kind}s"]:
            label, dims = json.dumps(str(tensor["name"])), (tensor["shape"][1:] or [1]) if batched else tensor["shape"]
            lines.append(f"{kind} [ {{ name: {label} data_type: {_TYPES[tensor['datatype']]} dims: {dims} }} ]")
    lines.append("instance_group [ { kind: KIND_CPU count: 1 } ]")
    lines.append(f"parameters {{ key: {json.dumps(FILES)} value {{ string_value: {json.dumps(files)} }} }}")
    return "\n".join(lines) + "\n"
