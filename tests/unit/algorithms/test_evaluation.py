"""The evaluator, against scikit-learn's metrics and against data that does not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from penstock.algorithms import classification
from tests.unit.algorithms.conftest import Job, flowers


@st.composite
def predictions(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    classes = draw(st.integers(2, 6))
    codes = st.integers(0, classes - 1)
    truth = draw(st.lists(codes, min_size=1, max_size=60))
    return truth, draw(st.lists(codes, min_size=len(truth), max_size=len(truth))), classes


@settings(max_examples=60, deadline=None)
@given(predictions())
def test_scores_equal_scikit_learns(case: tuple[list[int], list[int], int]) -> None:
    truth, predicted, classes = case
    everything = list(range(classes))
    matrix = classification.confusion_matrix(np.array(truth), np.array(predicted), classes)
    assert matrix.tolist() == reference.confusion_matrix(truth, predicted, labels=everything).tolist()
    assert classification.accuracy(matrix) == pytest.approx(reference.accuracy_score(truth, predicted))
    scores = classification.class_scores(matrix)
    expected = reference.precision_recall_fscore_support(truth, predicted, labels=everything, zero_division=0)
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    for average, averages in (("macro", classification.macro(scores)), ("weighted", classification.weighted(scores))):
        precision, recall, f1, _ = reference.precision_recall_fscore_support(
            truth, predicted, average=average, zero_division=0
        )
        assert averages == pytest.approx({"precision": precision, "recall": recall, "f1": f1})


@pytest.mark.parametrize("seed", range(5))
def test_log_loss_equals_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(4), size=50)
    probabilities[0] = [1, 0, 0, 0]
    truth = random.integers(0, 4, size=50)
    truth[0] = 2
    expected = reference.log_loss(truth, probabilities, labels=[0, 1, 2, 3])
    assert classification.log_loss(probabilities, truth) == pytest.approx(expected)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = Job(tmp_path_factory.mktemp("trained")).give("train", flowers(), label="species")
    assert job.run("logistic-regression") == 0
    return job.model


def evaluation(job: Job, model: Path, records: list[dict[str, Any]], **card: Any) -> Job:
    job.give("data", records, **card)
    shutil.copytree(model, job.root / "inputs" / "model")
    return job


def noisy(count: int = 120) -> list[dict[str, Any]]:
    """Fresh flowers, some with a wrong label."""
    records = flowers(count)
    for index, record in enumerate(records):
        if index % 9 == 0:
            record["species"] = "clover"
    return records


def results(job: Job) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    metrics = json.loads((job.output / "metrics.json").read_text())
    return metrics, pq.read_table(job.output / "predictions.parquet").to_pydict()


def test_metrics_and_predictions_agree_with_scikit_learn(job: Job, trained: Path) -> None:
    assert evaluation(job, trained, noisy(), label="species", parts=3).run("evaluate-classification") == 0
    metrics, rows = results(job)
    truth = {f"r{index:04d}": record["species"] for index, record in enumerate(noisy())}
    assert dict(zip(rows["_key"], rows["label"], strict=True)) == truth
    assert rows["_revision"] == [f"{key}/1" for key in rows["_key"]]
    assert rows["correct"] == [a == b for a, b in zip(rows["label"], rows["predicted"], strict=True)]
    assert all(1 / 3 < probability <= 1 for probability in rows["probability"])
    assert metrics["accuracy"] == pytest.approx(reference.accuracy_score(rows["label"], rows["predicted"]))
    report = reference.classification_report(rows["label"], rows["predicted"], output_dict=True, zero_division=0)
    for entry in metrics["per_class"]:
        expected = report[entry["label"]]
        assert (entry["precision"], entry["recall"], entry["f1"], entry["support"]) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"], expected["support"])
        )
    matrix = reference.confusion_matrix(rows["label"], rows["predicted"], labels=metrics["labels"])
    assert metrics["confusion_matrix"] == matrix.tolist()
    assert (metrics["records"], metrics["unlabelled"], metrics["unseen_labels"]) == (120, 0, [])
    assert 0 < metrics["log_loss"] < 10
    assert job.metrics("accuracy") == [(0, metrics["accuracy"])]
    assert job.metrics("macro_f1") == [(0, metrics["macro"]["f1"])]


def test_partitions_do_not_change_the_metrics(tmp_path: Path, trained: Path) -> None:
    found = []
    for parts in (1, 5):
        root = tmp_path / str(parts)
        root.mkdir()
        job = evaluation(Job(root), trained, noisy(), label="species", parts=parts)
        assert job.run("evaluate-classification") == 0
        found.append(results(job)[0])
    assert found[0].pop("log_loss") == pytest.approx(found[1].pop("log_loss"))
    assert found[0] == found[1]


def test_labels_that_the_model_never_learnt_count_as_wrong(
    job: Job, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    records = flowers(60)
    for record in records[:6]:
        record["species"] = "dahlia"
    assert evaluation(job, trained, records, label="species").run("evaluate-classification") == 0
    metrics, rows = results(job)
    assert metrics["labels"] == ["aster", "briar", "clover", "dahlia"]
    assert metrics["unseen_labels"] == [{"label": "dahlia", "records": 6}]
    assert metrics["accuracy"] <= 0.9
    assert not any(rows["correct"][:6])
    assert metrics["per_class"][3] == {"label": "dahlia", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 6}
    assert "6 records have the label 'dahlia', which the model never learnt" in capfd.readouterr().out


def test_records_without_label_are_counted_and_not_predicted(job: Job, trained: Path) -> None:
    records = flowers(30)
    records[4]["species"] = None
    assert evaluation(job, trained, records, label="species").run("evaluate-classification") == 0
    metrics, rows = results(job)
    assert (metrics["records"], metrics["unlabelled"]) == (29, 1)
    assert "r0004" not in rows["_key"]


def test_a_field_may_be_absent_from_one_partition(job: Job, trained: Path) -> None:
    evaluation(job, trained, flowers(30), label="species", parts=2)
    first = job.root / "inputs" / "data" / "part-00000.parquet"
    pq.write_table(pq.read_table(first).drop_columns(["petal", "soil"]), first)
    assert job.run("evaluate-classification") == 0


def test_a_field_that_is_missing_in_every_record_is_missing_to_the_model(job: Job, trained: Path) -> None:
    records = [{**record, "petal": None, "soil": None} for record in flowers(30)]
    assert evaluation(job, trained, records, label="species").run("evaluate-classification") == 0


def _without(field: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != field} for record in flowers(20)]


@pytest.mark.parametrize(
    ("records", "parameters", "says"),
    [
        (
            _without("petal"),
            {},
            "the model takes 'petal', but the dataset has no field of that name; its fields are",
        ),
        (
            [{**r, "petal": "long"} for r in flowers(20)],
            {},
            "field 'petal' does not fit the model's input (FP32 [-1, 1])",
        ),
        ([{**r, "soil": 3} for r in flowers(20)], {}, "field 'soil' does not fit the model's input (BYTES [-1, 1])"),
        ([{**r, "stem": [1, 2]} for r in flowers(20)], {}, "it has values of shape [2]"),
        (
            [{**r, "species": 4} for r in flowers(20)],
            {},
            "holds numbers (4), but the model's labels are text ('aster')",
        ),
        ([{**r, "species": None} for r in flowers(20)], {}, "no record of the dataset version has a label"),
        (flowers(20), {"label": "kind"}, "parameters.label: the dataset has no field 'kind'"),
        (flowers(20), {"threshold": 0.5}, "parameters.threshold: unknown parameter; known are label"),
    ],
)
def test_data_that_does_not_fit_the_model(
    job: Job,
    trained: Path,
    records: list[dict[str, Any]],
    parameters: dict[str, Any],
    says: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert evaluation(job, trained, records, label="species").run("evaluate-classification", **parameters) == 2
    assert says in capfd.readouterr().err


def test_a_model_whose_bytes_changed_is_refused(job: Job, trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evaluation(job, trained, flowers(20), label="species")
    path = job.root / "inputs" / "model" / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    assert job.run("evaluate-classification") == 2
    assert "model.json: digests.model.onnx: the file does not have this digest" in capfd.readouterr().err


def test_evaluating_does_not_import_scikit_learn() -> None:
    check = "import penstock.algorithms.evaluation, sys; raise SystemExit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
