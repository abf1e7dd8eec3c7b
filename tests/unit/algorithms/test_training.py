"""Trainers, from a job's folders to a model directory that serving can trust."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits

from penstock.algorithms import algorithm, estimators, export, training
from penstock.algorithms.estimators import TRAINERS, Sample, convert
from penstock.algorithms.inference import OnnxModel, columns_to_inputs, to_array
from penstock.algorithms.model_format import ModelCard
from penstock.algorithms.tensors import records_to_tensors
from tests.unit.algorithms.conftest import GOOD, Job, flowers

QUICK: dict[str, dict[str, Any]] = {
    "logistic-regression": {},
    "gradient-boosting": {"max_iter": 20, "max_leaf_nodes": 8},
    "mlp": {"epochs": 40},
}


def digits(count: int = 500) -> list[dict[str, Any]]:
    data = load_digits()
    return [{"pixels": [int(v) for v in data.data[i]], "digit": int(data.target[i])} for i in range(count)]


def answers(card: ModelCard, folder: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What onnxruntime alone says about raw records."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    inputs = {tensor.name: to_array(tensor) for tensor in records_to_tensors(card.inputs, records)}
    return dict(zip(("label", "probabilities"), session.run(["label", "probabilities"], inputs), strict=True))


@pytest.mark.parametrize("name", QUICK)
def test_digits_train_into_a_servable_model(job: Job, name: str) -> None:
    job.give("train", digits(), label="digit", json_columns=["pixels"], parts=3)
    assert job.run(name, **QUICK[name]) == 0
    card = job.card()
    assert [spec.to_json() for spec in card.inputs] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]
    assert [spec.to_json() for spec in card.outputs] == [
        {"name": "label", "datatype": "INT64", "shape": [-1, 1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    ]
    assert card.labels == tuple(range(10))
    assert card.task == "classification"
    assert card.details["dataset"] == {"name": "d", "version": "3", "rows": 500}
    assert set(card.example_outputs[0].data) == set(range(10))
    ((_, accuracy),) = job.metrics("accuracy")
    assert accuracy > 0.8
    fresh = digits(600)[500:]
    predicted = answers(card, job.model, fresh)["label"].reshape(-1)
    assert np.mean(predicted == [record["digit"] for record in fresh]) > 0.75


@pytest.mark.parametrize("name", QUICK)
def test_a_table_with_text_labels_gaps_and_categories(job: Job, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert job.give("train", flowers(), label="species").run(name, **QUICK[name]) == 0
    card = job.card()
    specs = {spec.name: (spec.datatype, spec.shape) for spec in card.inputs}
    assert specs == {
        "petal": ("FP32", (-1, 1)),
        "stem": ("FP32", (-1, 1)),
        "wild": ("FP32", (-1, 1)),
        "soil": ("BYTES", (-1, 1)),
    }
    assert "field 'name' is left out: its 200 different values" in capfd.readouterr().out
    assert card.labels == ("aster", "briar", "clover")
    assert {"field": "wild", "kind": "boolean", "shape": [1], "missing": "NaN"} in card.details["features"]
    clear = [{"petal": 0.3, "stem": 12, "soil": "clay", "wild": True}, {"petal": 4.3, "stem": 12, "soil": "peat"}]
    assert answers(card, job.model, clear)["label"].reshape(-1).tolist() == ["aster", "clover"]


@pytest.mark.parametrize("name", QUICK)
def test_unseen_categories_and_missing_fields_are_answered(job: Job, name: str) -> None:
    assert job.give("train", flowers(), label="species").run(name, **QUICK[name]) == 0
    unseen: list[dict[str, Any]] = [{"petal": 2.1, "soil": "volcanic"}, {}, {"soil": "sand"}]
    probabilities = answers(job.card(), job.model, unseen)["probabilities"]
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_the_onnx_model_is_the_same_function_as_the_estimator(
    job: Job, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[export.Data, export.Fitted]] = []

    def keeping(folder: Path, data: export.Data, fitted: export.Fitted, *rest: Any) -> None:
        kept.append((data, fitted))
        export.write_fitted(folder, data, fitted, *rest)

    monkeypatch.setattr(training, "write_fitted", keeping)
    assert job.give("train", flowers(300), label="species").run(name, **QUICK[name]) == 0
    data, fitted = kept[0]
    model = OnnxModel(job.model / "model.onnx")
    outputs = model.predict(columns_to_inputs(model.inputs, data.columns))
    expected = fitted.probabilities(data.columns)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    classes = [fitted.classes[code] for code in fitted.estimator.predict(fitted.features.encode(data.columns))]
    assert outputs["label"].reshape(-1).tolist() == classes


def test_a_model_that_differs_from_the_estimator_is_not_written(
    job: Job, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    honest = convert

    def lying(estimator: Any, width: int) -> Any:
        estimator.coef_ = estimator.coef_ * 1.1
        converted = honest(estimator, width)
        estimator.coef_ = estimator.coef_ / 1.1
        return converted

    monkeypatch.setattr(export, "convert", lying)
    assert job.give("train", digits(200), label="digit").run("logistic-regression") == 1
    assert "differ by" in capfd.readouterr().err
    assert not job.model.exists()


def test_tree_thresholds_are_exact_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbouring float32 numbers have a double threshold between them, which rounding to nearest would move."""
    low = np.nextafter(np.float32(1), np.float32(2))  # of odd mantissa: its midpoint to the next rounds up
    values = np.array([low, np.nextafter(low, np.float32(2))] * 40, dtype=np.float32).reshape(-1, 1)
    sample = Sample(values, np.array([0, 1] * 40, dtype=np.int64))
    parameters = algorithm("gradient-boosting").parse({"max_iter": 5, "min_samples_leaf": 1})

    def apart() -> float:
        estimator = TRAINERS["gradient-boosting"].fit(
            sample, sample.head(0), parameters, lambda *_: None, lambda _: None
        )
        session = onnxruntime.InferenceSession(convert(estimator, 1).SerializeToString())
        answered = session.run(["probabilities"], {"features": values})[0]
        return float(np.abs(answered - estimator.predict_proba(values)).max())

    assert apart() < 1e-5
    monkeypatch.setattr(estimators, "_round_thresholds", lambda estimator: None)
    assert apart() > 0.1


@pytest.mark.parametrize("name", QUICK)
def test_the_same_seed_gives_the_same_model(tmp_path: Path, name: str) -> None:
    models = []
    for attempt in range(2):
        root = tmp_path / str(attempt)
        root.mkdir()
        job = Job(root).give("train", flowers(), label="species", parts=1 + attempt)
        assert job.run(name, **QUICK[name], seed=5) == 0
        models.append((job.model / "model.onnx").read_bytes())
    assert models[0] == models[1]


@pytest.mark.parametrize(("name", "steps"), [("gradient-boosting", 20), ("mlp", 40)])
def test_loss_curves_are_reported_per_step(job: Job, name: str, steps: int) -> None:
    assert job.give("train", flowers(), label="species").run(name, **QUICK[name]) == 0
    for metric in ("train_loss", "validation_loss"):
        curve = job.metrics(metric)
        assert [step for step, _ in curve] == list(range(1, steps + 1))
        assert curve[-1][1] < curve[0][1]


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("json_columns", [[], ["image"]])
def test_images_as_nested_lists_keep_their_shape(job: Job, json_columns: list[str], gap: bool) -> None:
    records = [{"image": np.reshape(r["pixels"], (8, 8)).tolist(), "digit": r["digit"]} for r in digits(200)]
    if gap:
        records[7]["image"] = None
        records[8]["image"][3][3] = None
    assert job.give("train", records, label="digit", json_columns=json_columns).run("logistic-regression") == 0
    card = job.card()
    assert card.inputs[0].shape == (-1, 8, 8)
    assert answers(card, job.model, records[:3])["label"].shape == (3, 1)


@pytest.mark.parametrize("odd", [["a", "b"], [[1.0], [2.0]], [1.0, {"a": 2}], [1.0], []])
def test_lists_that_are_no_vectors_are_left_out(job: Job, odd: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    records = [{**record, "v": odd if index == 4 else [1.0, 2.0]} for index, record in enumerate(GOOD)]
    assert job.give("train", records, json_columns=["v"]).run("logistic-regression") == 0
    assert "field 'v' is left out: its lists" in capfd.readouterr().out


def test_the_key_is_nothing_to_learn_from(job: Job) -> None:
    records = [{**record, "id": index} for index, record in enumerate(GOOD)]
    assert job.give("train", records).run("logistic-regression") == 0
    assert {spec.name for spec in job.card().inputs} == {"x", "t"}


def test_json_columns_are_decoded_by_what_they_hold(job: Job) -> None:
    records = [{"size": 1 if i % 2 else 1.5, "flag": bool(i % 2), "point": [i, 0.5], "label": i % 2} for i in range(40)]
    records[3]["size"] = None  # type: ignore[assignment]
    job.give("train", records, json_columns=["size", "flag", "point", "label"])
    assert job.run("logistic-regression") == 0
    assert {spec.name: spec.shape for spec in job.card().inputs} == {"size": (-1, 1), "flag": (-1, 1), "point": (-1, 2)}


def test_boolean_labels_are_served_as_0_and_1(job: Job) -> None:
    records = [{"x": float(i), "label": i >= 20} for i in range(40)]
    assert job.give("train", records).run("logistic-regression", validation_fraction=0) == 0
    card = job.card()
    assert card.labels == (0, 1)
    assert answers(card, job.model, [{"x": 0.0}, {"x": 39.0}])["label"].tolist() == [[0], [1]]
    assert not (job.root / "metrics.jsonl").read_text().count('"accuracy"')


def test_two_records_are_enough_and_examples_are_repeated(job: Job) -> None:
    assert job.give("train", [{"x": 0.0, "label": "a"}, {"x": None, "label": "b"}]).run("logistic-regression") == 0
    assert len(job.card().example_outputs[0].data) == 8


def test_records_without_label_are_left_out(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    records = [{"x": float(i), "label": None if i % 4 == 0 else f"c{i % 4}"} for i in range(40)]
    assert job.give("train", records).run("logistic-regression") == 0
    assert "10 of 40 records have no label" in capfd.readouterr().out
    assert job.card().labels == ("c1", "c2", "c3")


def test_rare_categories_share_one_feature(job: Job) -> None:
    records = [{"c": f"v{min(i % 9, 4)}", "x": float(i % 2), "label": i % 2} for i in range(90)]
    assert job.give("train", records).run("logistic-regression", max_categories=2) == 0
    described = {entry["field"]: entry for entry in job.card().details["features"]}
    assert described["c"]["categories"] == ["v0", "v4"]


def test_only_named_features_are_used(job: Job) -> None:
    assert job.give("train", flowers(), label="species").run("logistic-regression", features=["petal", "soil"]) == 0
    assert {spec.name for spec in job.card().inputs} == {"petal", "soil"}


def test_the_command_and_a_forked_warm_worker_do_the_same(job: Job) -> None:
    """A process that has preloaded the libraries forks a worker that trains, as the job shim does."""
    job.give("train", digits(200), label="digit")
    (job.root / "params.json").write_text(json.dumps({"C": 0.5}))
    job.output.mkdir()
    environment = {
        "PENSTOCK_INPUT_DIR": str(job.root / "inputs"),
        "PENSTOCK_OUTPUT_DIR": str(job.output),
        "PENSTOCK_PARAMS": str(job.root / "params.json"),
    }
    command = [sys.executable, "-m", "penstock.algorithms", "logistic-regression"]
    subprocess.run(command, env=environment, check=True, timeout=60)
    cold = (job.model / "model.onnx").read_bytes()
    fork = (
        "import os; from penstock.algorithms import preload, run; preload(); pid = os.fork();"
        "pid or os._exit(run('logistic-regression'));"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    subprocess.run([sys.executable, "-c", fork], env=environment, check=True, timeout=60)
    assert (job.model / "model.onnx").read_bytes() == cold
