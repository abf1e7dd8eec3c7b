"""Trains a softmax regression with nothing of Penstock: files in, files out, as a program in any language can do it.

    penstock train digits@1 --code examples/own_code --command "python train.py" -p epochs=60 --model own-digits

Needs numpy, pyarrow, onnx and onnxruntime. By hand: set PENSTOCK_INPUT_DIR and PENSTOCK_OUTPUT_DIR, and run it.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet
from onnx import TensorProto, helper, numpy_helper

INPUT = Path(os.environ["PENSTOCK_INPUT_DIR"]) / "train"
OUTPUT = Path(os.environ["PENSTOCK_OUTPUT_DIR"]) / "model"
CHECKPOINT = Path(os.environ.get("PENSTOCK_CHECKPOINT_DIR", "checkpoints")) / "weights.npz"


def read() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Pixels [records, width] as float32, class positions [records], and the classes."""
    card = json.loads((INPUT / "input.json").read_text())
    table = pyarrow.parquet.read_table(sorted(INPUT.glob("part-*.parquet")))
    # Lists are columns of JSON text, as card["json_columns"] says.
    pixels = np.array([json.loads(text) for text in table["pixels"].to_pylist()], dtype=np.float32) / 16
    classes, positions = np.unique(table[card["label"]].to_numpy(), return_inverse=True)
    return pixels, positions, [int(label) for label in classes]


def report(step: int, **values: float) -> None:
    """Append one line to the metrics file; the platform reads it while the job runs."""
    with open(os.environ.get("PENSTOCK_METRICS", os.devnull), "a") as file:
        file.write(json.dumps({"step": step, "at": time.time(), **values}) + "\n")


def fit(
    pixels: np.ndarray, positions: np.ndarray, count: int, epochs: int, rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient descent on the log loss, resumed from the checkpoint if an earlier attempt left one."""
    weights, bias, first = np.zeros((pixels.shape[1], count)), np.zeros(count), 0
    if CHECKPOINT.exists():
        saved = np.load(CHECKPOINT)
        weights, bias, first = saved["weights"], saved["bias"], int(saved["epoch"])
        print(f"resumed after epoch {first}")
    truth = np.eye(count)[positions]
    for epoch in range(first + 1, epochs + 1):
        scores = pixels @ weights + bias
        likely = np.exp(scores - scores.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        report(epoch, train_loss=float(-np.log(likely[truth == 1] + 1e-12).mean()))
        weights -= rate * pixels.T @ (likely - truth) / len(truth)
        bias -= rate * (likely - truth).mean(axis=0)
        if epoch % 20 == 0:
            CHECKPOINT.parent.mkdir(parents=True, exist_ok=True)
            np.savez(CHECKPOINT, weights=weights, bias=bias, epoch=epoch)
    return weights.astype(np.float32), bias.astype(np.float32)


def to_onnx(weights: np.ndarray, bias: np.ndarray, classes: list[int]) -> bytes:
    """Raw pixels in (the scaling is part of the graph), label and probabilities out; the batch is dynamic."""
    constants = {"sixteen": np.float32(16), "weights": weights, "bias": bias, "classes": np.array(classes)}
    nodes = [
        helper.make_node("Div", ["pixels", "sixteen"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=1),
        helper.make_node("Gather", ["classes", "best"], ["label"]),
    ]
    graph = helper.make_graph(
        nodes,
        "softmax",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", len(weights)])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(classes)]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tensor(name: str, datatype: str, values: np.ndarray) -> dict[str, object]:
    """A KServe v2 tensor: flat data, row by row."""
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.reshape(-1).tolist()}


def write(model: bytes, examples: np.ndarray, classes: list[int]) -> None:
    """The model directory: model.onnx, and model.json with what serving needs to know and to compare."""
    session = onnxruntime.InferenceSession(model)
    label, probabilities = session.run(["label", "probabilities"], {"pixels": examples})
    card = {
        "schema_version": 1,
        "task": "classification",
        "signature": {
            "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, examples.shape[1]]}],
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [-1, 1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(classes)]},
            ],
        },
        "labels": classes,
        "framework": {"name": "numpy", "numpy": np.__version__, "onnxruntime": onnxruntime.__version__},
        "digests": {"model.onnx": "sha256:" + hashlib.sha256(model).hexdigest()},
        "examples": {
            "inputs": [tensor("pixels", "FP32", examples)],
            "outputs": [tensor("label", "INT64", label), tensor("probabilities", "FP32", probabilities)],
        },
        "tolerance": 1e-3,
    }
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "model.onnx").write_bytes(model)
    (OUTPUT / "model.json").write_text(json.dumps(card))


def main() -> int:
    """The exit code says whether the run succeeded."""
    parameters = {"epochs": 60, "learning_rate": 1.0}
    if os.environ.get("PENSTOCK_PARAMS"):
        parameters.update(json.loads(Path(os.environ["PENSTOCK_PARAMS"]).read_text()))
    pixels, positions, classes = read()
    print(f"{len(pixels)} records, {len(classes)} classes")
    weights, bias = fit(pixels, positions, len(classes), int(parameters["epochs"]), float(parameters["learning_rate"]))
    write(to_onnx(weights, bias, classes), pixels[:8] * 16, classes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
