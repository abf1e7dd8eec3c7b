"""An evaluation's attempt in the words of the executor, and what its job left behind in ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.errors import DataCorrupt
from penstock.jobs.result import JobResult
from penstock.jobs.spec import Algorithm, AttemptRef, InputFile, JobInput, JobSpec
from penstock.objects import ObjectStore
from penstock.sdk.datasets import input_card
from services.evaluation.model import ClassMetrics, Evaluation, Result

ALGORITHM = "evaluate-classification"
GRACE = 5.0  # seconds
PREFIX = "evaluation."  # of the ids of its jobs: training's lie in the same folder


def ref_of(evaluation: Evaluation, attempt: int = 0) -> AttemptRef:
    """An attempt, the current one by default."""
    number = attempt or evaluation.attempt
    resource = names.parse(evaluation.name, kind="evaluation")
    job = f"{PREFIX}{resource.project}.{resource.id}"
    return AttemptRef(job, number, f"{evaluation.name}/attempts/{number}")


def name_of(job: str) -> str:
    """The name of the evaluation that a job of this service works for."""
    project, _, id = job.removeprefix(PREFIX).partition(".")
    return names.build("evaluation", project, id)


def spec_of(evaluation: Evaluation, manifest: dataset_pb.Manifest) -> JobSpec:
    """The current attempt, ready to start."""
    ref = ref_of(evaluation)
    files = tuple(InputFile(file.path, file.digest, file.size) for file in manifest.files)
    return JobSpec(
        job=ref.job,
        resource=evaluation.name,
        project=evaluation.project,
        attempt=ref.attempt,
        output_prefix=ref.output_prefix,
        code=Algorithm(ALGORITHM),
        inputs=(JobInput("data", files, meta=input_card(manifest)), JobInput("model", tree=evaluation.artifact)),
        expects_model=False,
        grace=GRACE,
    )


def read_result(objects: ObjectStore, result: JobResult) -> Result:
    """What a successful job computed. Blocks. Raises DataCorrupt if its files are not there."""
    outputs = {output.path: output.digest for output in result.outputs}
    if "metrics.json" not in outputs or "predictions.parquet" not in outputs:
        raise DataCorrupt("The evaluation's job ended well but left no metrics.")
    found: Mapping[str, Any] = json.loads(objects.get_bytes(outputs["metrics.json"]))
    metrics = {"accuracy": float(found["accuracy"]), "records": float(found["records"])}
    if found.get("log_loss") is not None:
        metrics["log_loss"] = float(found["log_loss"])
    for average in ("macro", "weighted"):
        metrics |= {f"{average}_{name}": float(value) for name, value in found[average].items()}
    classes = tuple(
        ClassMetrics(str(c["label"]), float(c["precision"]), float(c["recall"]), float(c["f1"]), int(c["support"]))
        for c in found["per_class"]
    )
    return Result(
        metrics=metrics,
        classes=classes,
        labels=tuple(str(label) for label in found["labels"]),
        confusion=tuple(tuple(int(count) for count in row) for row in found["confusion_matrix"]),
        records=int(found["records"]),
        predictions=outputs["predictions.parquet"],
    )
