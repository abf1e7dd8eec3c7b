"""Evaluations by real jobs: metrics, verdicts, baselines, and what is done when a job or the service is lost."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb
from penstock.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from penstock.objects.trees import put_tree
from tests.integration.evaluation.conftest import Given, folders_gone, types
from tests.support.evaluation_platform import PARENT, PROJECT, ROWS, EvaluationPlatform, Instance

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def instance(platform: EvaluationPlatform) -> AsyncIterator[Instance]:
    started = await platform.start()
    yield started
    await started.kill()


async def test_an_evaluation_has_metrics_a_confusion_matrix_and_a_prediction_per_record(
    platform: EvaluationPlatform, given: Given, instance: Instance
) -> None:
    made = await platform.create(given.good, given.data, rule="accuracy > 0.9 && records >= 40.0")
    assert (made.state, made.author) == (pb.Evaluation.QUEUED, "mo")
    done = await platform.ended(made.name)
    assert done.state == pb.Evaluation.SUCCEEDED, done.reason
    assert done.metrics["accuracy"] > 0.9
    assert {"log_loss", "macro_f1", "weighted_recall"} <= set(done.metrics)
    assert (done.records, done.attempt) == (40, 1)
    assert sorted(done.confusion_matrix.labels) == ["big", "small"]
    assert sum(count for row in done.confusion_matrix.rows for count in row.counts) == 40
    assert {c.label: c.support for c in done.classes} == {"big": 19, "small": 21}
    assert done.verdict.passed
    chunks = [c.data async for c in platform.stub().ReadPredictions(pb.ReadPredictionsRequest(name=made.name))]
    table = pq.read_table(io.BytesIO(b"".join(chunks)))
    assert sorted(table["_key"].to_pylist()) == sorted(row["id"] for row in ROWS)
    events = await platform.events(made.name)
    assert types(events) == ["evaluation.completed", "evaluation.verdict.passed"]
    assert all(event["causation_id"].startswith("request:") and event["correlation_id"] for event in events)
    await folders_gone(platform)


async def test_a_model_that_is_worse_than_what_is_served_fails_and_the_baseline_is_evaluated_once(
    platform: EvaluationPlatform, given: Given, instance: Instance
) -> None:
    data = platform.datasets.add(PROJECT, "sizes", ROWS, label="kind", number=2)
    endpoint = f"{PARENT}/endpoints/live"
    platform.endpoints.serves[endpoint] = given.good
    rule = "accuracy >= baseline - 0.005"
    first = await platform.ended((await platform.create(given.bad, data, rule=rule, baseline=endpoint)).name)
    assert first.state == pb.Evaluation.SUCCEEDED, first.reason
    assert not first.verdict.passed
    assert first.verdict.baseline == given.good
    assert first.verdict.baseline_metrics["accuracy"] > first.metrics["accuracy"]
    assert "baseline" in first.verdict.reason
    assert types(await platform.events(first.name)) == ["evaluation.completed", "evaluation.verdict.failed"]
    second = await platform.ended((await platform.create(given.bad, data, rule=rule, baseline=given.good)).name)
    assert not second.verdict.passed
    listed = (
        await platform.stub().ListEvaluations(pb.ListEvaluationsRequest(parent=PARENT, model_version=given.good))
    ).evaluations
    assert len([e for e in listed if e.dataset_version == data]) == 1


async def test_a_rule_that_needs_a_baseline_passes_where_nothing_is_served(
    platform: EvaluationPlatform, given: Given, instance: Instance
) -> None:
    baseline = f"{PARENT}/endpoints/none"
    made = await platform.create(given.bad, given.data, rule="accuracy >= baseline", baseline=baseline)
    done = await platform.ended(made.name)
    assert done.verdict.passed
    assert done.verdict.reason == "there is no baseline yet"


async def test_what_the_job_says_is_the_reason_of_a_failure(
    platform: EvaluationPlatform, given: Given, instance: Instance, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights.bin").write_bytes(b"no model")
    assert put_tree(platform.objects, tmp_path / "m").digest
    broken = platform.training.add(PROJECT, "broken", tmp_path / "m")
    made = await platform.create(broken, given.data)
    done = await platform.ended(made.name)
    assert (done.state, done.attempt) == (pb.Evaluation.FAILED, 1)
    assert "model" in done.reason
    assert types(await platform.events(made.name)) == ["evaluation.failed"]
    with pytest.raises(FailedPrecondition):
        async for _ in platform.stub().ReadPredictions(pb.ReadPredictionsRequest(name=made.name)):
            pass


async def test_the_same_request_makes_one_evaluation(
    platform: EvaluationPlatform, given: Given, instance: Instance
) -> None:
    first = await platform.create(given.good, given.data, request_id="once")
    again = await platform.create(given.good, given.data, request_id="once")
    assert again.name == first.name
    # A day later the store has forgotten the request, but a pipeline that was down meanwhile sends it again.
    evaluations = platform.database.collection("evaluations")
    await evaluations.update_one({"_id": first.name}, {"$set": {"requests": []}})
    assert (await platform.create(given.good, given.data, request_id="once")).name == first.name


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ({"model_version": "sizes@1"}, InvalidArgument, "evaluation.model_version"),
        ({"model_version": f"{PARENT}/models/sizes/versions/99"}, NotFound, "evaluation.model_version"),
        ({"dataset_version": f"{PARENT}/datasets/sizes/versions/99"}, NotFound, "evaluation.dataset_version"),
        ({"dataset_version": f"{PARENT}/datasets/sizes"}, InvalidArgument, "evaluation.dataset_version"),
        ({"baseline": f"{PARENT}/runs/r"}, InvalidArgument, "evaluation.baseline"),
        ({"baseline": f"{PARENT}/models/none/versions/1"}, NotFound, "evaluation.baseline"),
        ({"rule": "accuracy >= baseline"}, InvalidArgument, "evaluation.baseline"),
        ({"rule": "precision > 1"}, InvalidArgument, "evaluation.rule"),
        ({"rule": "accuracy >"}, InvalidArgument, "evaluation.rule"),
    ],
)
async def test_a_wrong_request_names_its_field(
    platform: EvaluationPlatform, given: Given, instance: Instance, fields: dict[str, Any], kind: Any, field: str
) -> None:
    spec = pb.Evaluation(**{"model_version": given.good, "dataset_version": given.data, **fields})
    with pytest.raises(kind) as caught:
        await platform.stub().CreateEvaluation(pb.CreateEvaluationRequest(parent=PARENT, evaluation=spec))
    assert caught.value.violations[0].field == field


async def test_other_projects_and_viewers_are_refused(
    platform: EvaluationPlatform, given: Given, instance: Instance
) -> None:
    spec = pb.Evaluation(model_version=given.good, dataset_version=given.data)
    for role, project in (("viewer", PROJECT), ("editor", "other")):
        with pytest.raises(PermissionDenied):
            stub = platform.stub(role, project)
            await stub.CreateEvaluation(pb.CreateEvaluationRequest(parent=f"projects/{project}", evaluation=spec))
    with pytest.raises(PermissionDenied):
        await platform.stub("editor", "other").ListEvaluations(
            pb.ListEvaluationsRequest(parent="projects/other", model_version=given.good)
        )
