"""From what a job left behind to what a run accepts: its model checked, its metrics complete, its failure explained."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from penstock.algorithms.model_format import CARD_FILE, MODEL_FILE, ModelCard
from penstock.errors import InvalidArgument, NotFound
from penstock.jobs.result import JobResult, JobState
from penstock.objects import ObjectStore, read_tree
from penstock.store import now
from services.training.model import Artifact, Number, Outcome, Run
from services.training.repository import Batch
from services.training.versions import ModelVersion

MAX_REASON = 24_000  # the last 20 lines of a log have at most 1,000 characters each


def outcome_of(objects: ObjectStore, run: Run, result: JobResult) -> tuple[Outcome, list[Batch]]:
    """What to accept of the result of the run's current attempt, and its whole metrics. Blocks: call it in a thread."""
    batches = _batches(objects, run, result)
    reason = _failure(result) if result.state is not JobState.SUCCEEDED else _model_problem(objects, run, result)
    outcome = Outcome(
        reason=reason,
        exit_code=result.exit_code,
        log=result.log.digest if result.log else "",
        metrics=_last_values(batches),
        artifacts=tuple(Artifact(output.path, output.digest, output.size) for output in result.outputs),
        artifact=result.model,
        code_commit=str(result.code.get("commit") or ""),
        environment=dict(result.environment),
    )
    return outcome, batches


def read_card(objects: ObjectStore, artifact: str) -> ModelCard:
    """The description of a model by the digest of its tree. Raises InvalidArgument if it is no model directory."""
    files = {file.path: file.digest for file in read_tree(objects, artifact).files}
    if CARD_FILE not in files:
        raise InvalidArgument(f"The model directory has no {CARD_FILE}: write it with penstock.run.save_model.")
    card = ModelCard.parse(objects.get_bytes(files[CARD_FILE]))
    card.check_names(files)
    for name, digest in card.digests.items():
        if files.get(name) != digest:
            found = "is not there" if name not in files else "has another digest"
            raise InvalidArgument(f"{CARD_FILE} lists {name}, which {found}: write {MODEL_FILE} first, then the card.")
    return card


def model_version(objects: ObjectStore, run: Run, model: str, study: str, author: str) -> ModelVersion:
    """The version that a run with an artifact makes of `model`, still without a number. Raises InvalidArgument."""
    card = read_card(objects, run.artifact)
    described = card.to_json()
    files = read_tree(objects, run.artifact).files
    return ModelVersion(
        name="",
        model=model,
        number=0,
        run=run.name,
        study=study,
        dataset_version=run.dataset_version,
        manifest=run.manifest,
        code_commit=run.code_commit,
        algorithm=run.code.algorithm,
        parameters=run.parameters,
        metrics=run.metrics,
        task=card.task,
        signature=described["signature"],
        labels=tuple(str(label) for label in card.labels),
        artifact=run.artifact,
        files=tuple(Artifact(file.path, file.digest, file.size) for file in files),
        author=author,
        created=now(),
    )


def _failure(result: JobResult) -> str:
    """Why the attempt failed; the runner has put the last lines of the log below."""
    reason = result.reason or f"The command ended with exit code {result.exit_code}."
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"


def _model_problem(objects: ObjectStore, run: Run, result: JobResult) -> str:
    if not result.model:
        if not run.expects_model:
            return ""
        return "The run ended well but wrote no model: save one to PENSTOCK_OUTPUT_DIR/model (model.onnx, model.json)."
    try:
        read_card(objects, result.model)
    except (InvalidArgument, NotFound) as error:
        return f"The model that the run wrote cannot be used. {error.message}"
    return ""


def _batches(objects: ObjectStore, run: Run, result: JobResult) -> list[Batch]:
    if result.metrics is None:
        return []
    lines = objects.get_bytes(result.metrics.digest).splitlines()
    return [_batch(run, json.loads(line)) for line in lines if line.strip()]


def _batch(run: Run, line: dict[str, Any]) -> Batch:
    points = tuple((str(p["name"]), int(p["step"]), float(p["value"]), float(p["at"])) for p in line["points"])
    return Batch(run.name, run.attempt, int(line["batch_id"]), points)


def _last_values(batches: Iterable[Batch]) -> dict[str, Number]:
    return {name: value for batch in batches for name, _, value, _ in batch.points}
