"""What a model directory must be to become a Triton repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.backing.triton_repository import write_repository
from penstock.errors import FailedPrecondition

SIGNATURE = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
}


def _model(folder: Path, signature: Any = SIGNATURE) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder / "model.json").write_text(json.dumps({"signature": signature}))
    return folder


def test_the_repository_has_the_endpoint_s_name_and_the_model_s_types(tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "repository", "digits", _model(tmp_path / "model"))
    assert (folder / "digits" / "config.pbtxt").read_text().splitlines() == [
        'name: "digits"',
        'backend: "python"',
        "max_batch_size: 1048576",
        "dynamic_batching { }",
        'input [ { name: "x" data_type: TYPE_FP32 dims: [64] } ]',
        'output [ { name: "label" data_type: TYPE_STRING dims: [1] } ]',
        "instance_group [ { kind: KIND_CPU count: 1 } ]",
        'parameters { key: "files" value { string_value: "../model" } }',
    ]


@pytest.mark.parametrize("shape", [[-1], [1, 64]])
def test_a_model_whose_requests_cannot_be_run_together_is_not_batched(tmp_path: Path, shape: list[int]) -> None:
    signature = {**SIGNATURE, "inputs": [{"name": "x", "datatype": "FP32", "shape": shape}]}
    folder = write_repository(tmp_path / "repository", "digits", _model(tmp_path / "model", signature))
    config = (folder / "digits" / "config.pbtxt").read_text()
    assert "max_batch_size: 0" in config
    assert f"dims: {shape}" in config
    assert "dynamic_batching" not in config


def test_it_can_be_written_again_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    model = _model(tmp_path / "model")
    for _ in range(2):
        write_repository(tmp_path / "repository", "digits", model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "repository"]


def test_nothing_of_the_model_directory_is_in_the_repository(tmp_path: Path) -> None:
    model = _model(tmp_path / "model")
    (model / "model.py").write_text("raise SystemExit")
    folder = write_repository(tmp_path / "repository", "digits", model)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    assert files == ["digits/1/model.py", "digits/config.pbtxt"]
    assert "SystemExit" not in (folder / "digits" / "1" / "model.py").read_text()


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (None, "no valid signature"),
        ({"inputs": []}, "no valid signature"),
        ({"inputs": [], "outputs": []}, "needs an input and an output"),
        ({**SIGNATURE, "inputs": [{"name": "x", "datatype": "STRING", "shape": [-1]}]}, "'x' is STRING"),
        ({**SIGNATURE, "inputs": [{"name": "x", "datatype": "FP32", "shape": []}]}, "'x' has the shape"),
        ({**SIGNATURE, "inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 1]}]}, "'x' has the shape"),
        ({**SIGNATURE, "inputs": [{"name": "x", "datatype": "FP32", "shape": ["n"]}]}, "'x' has the shape"),
    ],
)
def test_a_signature_that_cannot_be_served_is_refused(tmp_path: Path, signature: Any, message: str) -> None:
    with pytest.raises(FailedPrecondition, match=message):
        write_repository(tmp_path / "repository", "digits", _model(tmp_path / "model", signature))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_without_onnx_is_refused(tmp_path: Path) -> None:
    model = _model(tmp_path / "model")
    (model / "model.onnx").unlink()
    with pytest.raises(FailedPrecondition, match=r"no model\.onnx"):
        write_repository(tmp_path / "repository", "digits", model)
