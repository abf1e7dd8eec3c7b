"""The loop's steps on a running platform: what the pipeline does by itself, and a client that does the same by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.api.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from penstock.api.serving.v1 import serving_service_pb2 as serving_pb
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.cli.demo.digits import write_jsonl
from penstock.errors import PenstockError
from penstock.sdk.client import Client
from penstock.sdk.following import wait
from penstock.sdk.pipelines import apply_request, parse_pipeline

ALGORITHM = "logistic-regression"
RULE = "accuracy >= baseline - 0.1"  # one label more or less decides nothing
TEST = "digits-test"


@dataclass
class Subject:
    """A dataset with a model and an endpoint of the same name."""

    client: Client
    name: str
    records: Sequence[Mapping[str, Any]]
    models: set[str] = field(default_factory=set)
    _turn: int = 0

    def prepare(self, folder: Path, pipeline: bool) -> None:
        """Import, train, evaluate and serve a first model; then apply the pipeline, if there is to be one."""
        data = self.client.dataset(self.name)
        data.create(key_field="id", label_field="label")
        data.import_file(write_jsonl(folder / f"{self.name}.jsonl", self.records), key="id", label="label")
        self.react(1)
        if pipeline:
            spec = parse_pipeline(self.client, self._pipeline())
            self.client.pipelines.UpdatePipeline(apply_request(spec))

    def change(self) -> int:
        """Commit another label of one record; answers the version once it is committed."""
        self._turn += 1
        record = self.records[self._turn]
        data = self.client.dataset(self.name)
        data.patch(record["id"], {"label": (record["label"] + 1) % 10}, draft="bench", why="bench")
        data.commit("bench", draft="bench")
        return data.get().head

    def react(self, version: int) -> None:
        """By hand: train on a version, evaluate, and deploy, each as soon as the one before has ended."""
        self.deploy(self.evaluate(self.train(version)))

    def train(self, version: int) -> str:
        """A run to its end; the model version that it made."""
        run = training_pb.Run(
            dataset_version=self.client.name("dataset_version", self.name, version),
            code=training_pb.Code(algorithm=ALGORITHM),
            model=self.name,
        )
        made = self.client.training.CreateRun(training_pb.CreateRunRequest(parent=self.client.project, run=run))
        done: training_pb.Run = wait(lambda: self.client.training.WatchRun(training_pb.WatchRunRequest(name=made.name)))
        if done.state != training_pb.Run.SUCCEEDED:
            raise PenstockError(f"Training failed: {done.reason}")
        return done.model_version

    def evaluate(self, model_version: str) -> str:
        """The same evaluation as the pipeline's; answers the model version."""
        spec = evaluation_pb.Evaluation(
            model_version=model_version,
            dataset_version=self.client.name("dataset_version", TEST, 1),
            rule=RULE,
            baseline=self.client.name("endpoint", self.name),
        )
        request = evaluation_pb.CreateEvaluationRequest(parent=self.client.project, evaluation=spec)
        made = self.client.evaluations.CreateEvaluation(request)
        watch = evaluation_pb.WatchEvaluationRequest(name=made.name)
        done: evaluation_pb.Evaluation = wait(lambda: self.client.evaluations.WatchEvaluation(watch))
        if done.state != evaluation_pb.Evaluation.SUCCEEDED or not done.verdict.passed:
            raise PenstockError(f"The evaluation failed: {done.reason or done.verdict.reason}")
        return model_version

    def deploy(self, model_version: str) -> None:
        """A shift in one step, to its end."""
        request = serving_pb.DeployModelRequest(
            name=self.client.name("endpoint", self.name), model_version=model_version
        )
        made = self.client.serving.DeployModel(request)
        watch = serving_pb.WatchRevisionRequest(name=made.name)
        done: serving_pb.Revision = wait(lambda: self.client.serving.WatchRevision(watch))
        if done.state != serving_pb.Revision.SERVING:
            raise PenstockError(f"The model was not served: {done.reason}")

    def training_seconds(self, revision: int) -> float:
        """How long the training itself took (the job of its run's attempt) behind a revision."""
        name = self.client.name("revision", self.name, revision)
        served = self.client.serving.GetRevision(serving_pb.GetRevisionRequest(name=name))
        version = self.client.training.GetModelVersion(training_pb.GetModelVersionRequest(name=served.model_version))
        run = self.client.training.GetRun(training_pb.GetRunRequest(name=version.run))
        attempt = run.attempts[-1]
        return (attempt.end_time.ToNanoseconds() - attempt.start_time.ToNanoseconds()) / 1e9

    def _pipeline(self) -> dict[str, Any]:
        model = "${steps.train.model_version}"
        evaluation = {"model": model, "dataset": f"{TEST}@1", "rule": RULE, "baseline": self.name}
        return {
            "kind": "Pipeline",
            "name": f"retrain-{self.name}",
            "on": {
                "event": "dataset.version.committed",
                "filter": f"event.data.dataset.endsWith('/datasets/{self.name}')",
            },
            "steps": [
                {"id": "train", "train": {
                    "dataset": "${event.data.version}", "algorithm": ALGORITHM, "model": self.name,
                }},
                {"id": "evaluate", "evaluate": evaluation},
                {"id": "deploy", "deploy": {"endpoint": self.name, "model": model, "steps": [100]}},
            ],
        }  # fmt: skip


def wait_for(condition: Any, seconds: float, what: str) -> None:
    """Look every 5 ms; raises PenstockError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise PenstockError(f"{what} did not happen within {seconds:g} s.")
        time.sleep(0.005)
