"""The examples of own code do what the runner's contract asks for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from penstock.algorithms.model_format import ModelCard
from tests.unit.algorithms.conftest import Job

FOLDER = Path(__file__).parents[3] / "examples" / "own_code"


def execute(job: Job, script: str, **parameters: int) -> str:
    (job.root / "params.json").write_text(json.dumps(parameters))
    environment = {
        "PATH": os.environ["PATH"],
        "PENSTOCK_INPUT_DIR": str(job.root / "inputs"),
        "PENSTOCK_OUTPUT_DIR": str(job.output),
        "PENSTOCK_PARAMS": str(job.root / "params.json"),
        "PENSTOCK_METRICS": str(job.root / "metrics.jsonl"),
        "PENSTOCK_CHECKPOINT_DIR": str(job.root / "checkpoints"),
    }
    command = [sys.executable, str(FOLDER / script)]
    return subprocess.run(command, env=environment, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture
def digits(job: Job) -> Job:
    data = load_digits()
    records = [{"pixels": [int(v) for v in data.data[i]], "digit": int(data.target[i])} for i in range(600)]
    return job.give("train", records[:450], label="digit", json_columns=["pixels"], parts=2).give(
        "data", records[450:], label="digit", json_columns=["pixels"]
    )


@pytest.mark.parametrize(
    ("script", "parameters", "metric", "steps"),
    [("train.py", {"epochs": 60}, "train_loss", 60), ("train_with_run.py", {"trees": 30}, "accuracy", 3)],
)
def test_own_code_makes_a_model_that_can_be_evaluated(
    digits: Job, script: str, parameters: dict[str, int], metric: str, steps: int
) -> None:
    execute(digits, script, **parameters)
    lines = [json.loads(line) for line in (digits.root / "metrics.jsonl").read_text().splitlines()]
    assert sum(metric in line for line in lines) == steps
    assert ModelCard.load(digits.model).labels == tuple(range(10))
    shutil.copytree(digits.model, digits.root / "inputs" / "model")
    assert digits.run("evaluate-classification") == 0
    assert json.loads((digits.output / "metrics.json").read_text())["accuracy"] > 0.8


def test_a_lost_attempt_is_resumed_from_its_checkpoint(digits: Job) -> None:
    execute(digits, "train.py", epochs=40)
    assert "resumed after epoch 40" in execute(digits, "train.py", epochs=60)
    steps = [json.loads(line)["step"] for line in (digits.root / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61))
