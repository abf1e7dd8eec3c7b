"""`penstock.run` by hand, with nothing but files and variables around it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import run
from penstock.algorithms.model_format import ModelCard
from penstock.errors import InvalidArgument, NotFound


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = {"INPUT_DIR": "in", "OUTPUT_DIR": "out", "CHECKPOINT_DIR": "kept"}
    names |= {"PARAMS": "params.json", "METRICS": "metrics.jsonl", "PRUNE": "prune"}
    for name, path in names.items():
        monkeypatch.setenv(f"PENSTOCK_{name}", str(tmp_path / path))
    return tmp_path


def test_inputs_are_found_by_name(job: Path) -> None:
    (job / "in" / "train").mkdir(parents=True)
    for n in range(2):
        pq.write_table(pa.table({"x": [n, n + 1]}), job / "in" / "train" / f"part-{n}.parquet")
    (job / "in" / "train" / "input.json").write_text('{"label": "y"}')
    assert list(run.inputs) == ["train"]
    assert "test" not in run.inputs
    train = run.inputs["train"]
    assert [file.name for file in train.files] == ["part-0.parquet", "part-1.parquet"]
    assert train.to_arrow().column("x").to_pylist() == [0, 1, 1, 2]
    assert train.meta == {"label": "y"}
    with pytest.raises(NotFound, match="there are: train"):
        run.inputs["test"]


def test_parameters_and_checkpoints(job: Path) -> None:
    assert run.params() == {}
    (job / "params.json").write_text('{"rate": 0.1}')
    assert run.params() == {"rate": 0.1}
    assert run.checkpoint_dir() == job / "kept"
    assert run.checkpoint_dir().is_dir()
    assert not run.should_prune()
    (job / "prune").touch()
    assert run.should_prune()


def test_metrics_are_appended_as_strict_json_lines(job: Path) -> None:
    run.log_metrics(loss=0.5, step=1)
    run.log_metrics(loss=math.nan, rate=-math.inf, step=2)
    run.log_metrics(loss=np.float32(1.5))  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, "NaN"), (0, 1.5)]
    assert lines[1]["rate"] == "-Infinity"
    with pytest.raises(InvalidArgument, match="no number"):
        run.log_metrics(loss="low")  # type: ignore[arg-type]


def test_by_hand_metrics_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("PENSTOCK_METRICS", raising=False)
    monkeypatch.delenv("PENSTOCK_PRUNE", raising=False)
    run.log_metrics(loss=0.5)
    assert '"loss": 0.5' in capsys.readouterr().out
    assert not run.should_prune()


def test_a_model_without_onnxruntime_is_described_by_its_author(job: Path) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [8, 1], "data": [float(n) for n in range(8)]}
    spec = {"name": "x", "datatype": "FP32", "shape": [-1, 1]}
    folder = run.save_model(
        b"onnx",
        signature={"inputs": [spec], "outputs": [{**spec, "name": "y"}]},
        examples={"inputs": [tensor], "outputs": [{**tensor, "name": "y"}]},
        task="regression",
        framework={"torch": "2.9"},
    )
    assert folder == job / "out" / "model"
    assert ModelCard.load(folder).framework == {"torch": "2.9"}
    with pytest.raises(InvalidArgument):
        run.save_model(b"onnx", signature={"inputs": [spec], "outputs": []}, examples={}, task="regression")
