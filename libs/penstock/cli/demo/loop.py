"""The stages of the demo, each by the API that everybody has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from penstock.api.lineage.v1 import lineage_service_pb2 as lineage_pb
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pipeline_pb
from penstock.api.serving.v1 import serving_service_pb2 as serving_pb
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.tuning.v1 import tuning_service_pb2 as tuning_pb
from penstock.cli.demo.digits import Digits, write_jsonl
from penstock.cli.demo.traffic import Traffic
from penstock.errors import NotFound, PenstockError, Unavailable
from penstock.objects.paths import safe_join
from penstock.rpc.structs import to_struct
from penstock.sdk.client import Client
from penstock.sdk.datasets import save_stream
from penstock.sdk.following import wait
from penstock.sdk.pipelines import apply_request, parse_pipeline
from penstock.sdk.studies import parse_space

DATASET, TEST, MODEL, ENDPOINT, PIPELINE = "digits", "digits-test", "digits", "digits", "retrain-digits"
ALGORITHM = "logistic-regression"
RULE = "accuracy >= baseline - 0.005"
BEFORE = 1.5  # seconds of traffic before the correction
ENOUGH = 150  # answers of each revision
PATIENCE = 120.0  # seconds for the pipeline to react

PIPELINE_DOCUMENT: dict[str, Any] = {
    "kind": "Pipeline",
    "name": PIPELINE,
    "description": "A corrected label becomes a better served model.",
    "on": {
        "event": "dataset.version.committed",
        "filter": f"event.data.dataset.endsWith('/datasets/{DATASET}')",
        "debounce": {"quiet": "300ms", "max_wait": "5s"},
    },
    "steps": [
        {"id": "train", "train": {"dataset": "${event.data.version}", "algorithm": ALGORITHM, "model": MODEL}},
        {
            "id": "evaluate",
            "evaluate": {
                "model": "${steps.train.model_version}",
                "dataset": f"{TEST}@1",
                "rule": RULE,
                "baseline": ENDPOINT,
            },
        },
        {
            "id": "deploy",
            "deploy": {
                "endpoint": ENDPOINT,
                "model": "${steps.train.model_version}",
                "steps": [10, 100],
                "hold": "1s",
            },
        },
    ],
}


@dataclass
class Loop:
    """One demo against a running platform; `say` tells the person what happens."""

    client: Client
    digits: Digits
    folder: Path
    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[None]:
        """Time a stage."""
        self.say(text)
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)

    def run(self) -> Traffic:
        """All stages; answers the traffic, stopped."""
        with self.stage("import", "importing 1,400 digits, 8 % of them mislabelled, and 397 clean ones to test with"):
            self._import()
        with self.stage("train", "applying the pipeline, and training a first model by hand"):
            self._apply_pipeline()
            self._train()
        with self.stage("tune", "tuning: 8 trials, 2 at once"):
            first = self._tune()
        with self.stage("evaluate", "evaluating on the clean digits"):
            self.facts["accuracy_before"] = self._evaluate(first)
        with self.stage("deploy", "serving it on Triton behind Envoy"):
            self._deploy(first)
        traffic = Traffic(self.client, ENDPOINT, self.digits.test)
        traffic.start()
        try:
            self._correct_under(traffic)
        finally:
            traffic.stop()
        with self.stage("trace", "tracing a prediction back to the records"):
            self._trace(traffic)
        return traffic

    def _import(self) -> None:
        for name, records in ((DATASET, self.digits.train), (TEST, self.digits.test)):
            data = self.client.dataset(name)
            data.create(key_field="id", label_field="label")
            path = write_jsonl(self.folder / f"{name}.jsonl", records)
            done = data.import_file(path, key="id", label="label")
            if not done.version:
                raise PenstockError(f"The import of {path.name} failed: {done.reason}")

    def _apply_pipeline(self) -> None:
        spec = parse_pipeline(self.client, PIPELINE_DOCUMENT)
        self.client.pipelines.UpdatePipeline(apply_request(spec))

    def _train(self) -> None:
        run = training_pb.Run(
            dataset_version=self.client.name("dataset_version", DATASET, 1),
            code=training_pb.Code(algorithm=ALGORITHM),
            model=MODEL,
        )
        made = self.client.training.CreateRun(training_pb.CreateRunRequest(parent=self.client.project, run=run))
        done: training_pb.Run = wait(lambda: self.client.training.WatchRun(training_pb.WatchRunRequest(name=made.name)))
        if done.state != training_pb.Run.SUCCEEDED:
            raise PenstockError(f"Training failed: {done.reason}")

    def _tune(self) -> str:
        """Search the regularisation; answers the model version of the best trial."""
        study = tuning_pb.Study(
            dataset_version=self.client.name("dataset_version", DATASET, 1),
            code=training_pb.Code(algorithm=ALGORITHM),
            space=parse_space({"C": {"float": [0.3, 30.0], "log": True}}),
            objective=tuning_pb.Objective(metric="accuracy", direction=tuning_pb.Objective.MAXIMIZE),
            max_trials=8,
            parallelism=2,
            model=MODEL,
        )
        made = self.client.tuning.CreateStudy(tuning_pb.CreateStudyRequest(parent=self.client.project, study=study))
        done: tuning_pb.Study = wait(lambda: self.client.tuning.WatchStudy(tuning_pb.WatchStudyRequest(name=made.name)))
        if done.state != tuning_pb.Study.SUCCEEDED:
            raise PenstockError(f"Tuning failed: {done.reason}")
        self.facts["study"] = {"name": done.name, "best_value": done.best_value, "trials": done.trials_completed}
        return done.model_version

    def _evaluate(self, model_version: str) -> float:
        spec = evaluation_pb.Evaluation(
            model_version=model_version, dataset_version=self.client.name("dataset_version", TEST, 1)
        )
        request = evaluation_pb.CreateEvaluationRequest(parent=self.client.project, evaluation=spec)
        made = self.client.evaluations.CreateEvaluation(request)
        watch = evaluation_pb.WatchEvaluationRequest(name=made.name)
        done: evaluation_pb.Evaluation = wait(lambda: self.client.evaluations.WatchEvaluation(watch))
        if done.state != evaluation_pb.Evaluation.SUCCEEDED:
            raise PenstockError(f"The evaluation failed: {done.reason}")
        return done.metrics["accuracy"]

    def _deploy(self, model_version: str) -> None:
        request = serving_pb.DeployModelRequest(
            name=self.client.name("endpoint", ENDPOINT), model_version=model_version
        )
        made = self.client.serving.DeployModel(request)
        watch = serving_pb.WatchRevisionRequest(name=made.name)
        done: serving_pb.Revision = wait(lambda: self.client.serving.WatchRevision(watch))
        if done.state != serving_pb.Revision.SERVING:
            raise PenstockError(f"The model was not served: {done.reason}")
        self.facts["models"] = {done.number: model_version}

    def _correct_under(self, traffic: Traffic) -> None:
        self.say("a client sends predictions without pause")
        time.sleep(BEFORE)
        with self.stage("correct", f"correcting {len(self.digits.corrections)} labels in one commit"):
            self._correct()
        committed = time.monotonic()
        with self.stage("react", "nobody does anything: the pipeline retrains, evaluates and shifts the traffic"):
            run = self._await_pipeline()
        self.facts["commit_to_served"] = round(time.monotonic() - committed, 2)
        self._read_pipeline(run)
        deadline = time.monotonic() + 10
        while traffic.count(self._newest_revision()) < ENOUGH and time.monotonic() < deadline:
            time.sleep(0.1)

    def _correct(self) -> None:
        data = self.client.dataset(DATASET)
        edits = [
            dataset_pb.RecordEdit(key=key, patch=to_struct({"label": label}))
            for key, label in self.digits.corrections.items()
        ]
        data.edit(edits, draft="corrections", why="the label was wrong")
        done = data.commit("Correct the labels that annotators got wrong", draft="corrections")
        self.facts["dataset_version"] = done.version

    def _await_pipeline(self) -> pipeline_pb.PipelineRun:
        """The run that the commit caused, at its end."""
        parent = self.client.name("pipeline", PIPELINE)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                listed = self.client.pipelines.ListPipelineRuns(pipeline_pb.ListPipelineRunsRequest(parent=parent))
            except Unavailable:
                listed = pipeline_pb.ListPipelineRunsResponse()
            if listed.pipeline_runs:
                return self._follow_pipeline(listed.pipeline_runs[0].name)
            time.sleep(0.05)
        raise PenstockError(
            f"The pipeline did not react within {PATIENCE:g} s; see `penstock pipeline why {PIPELINE}`."
        )

    def _follow_pipeline(self, name: str) -> pipeline_pb.PipelineRun:
        request = pipeline_pb.WatchPipelineRunRequest(name=name)
        done: pipeline_pb.PipelineRun = wait(lambda: self.client.pipelines.WatchPipelineRun(request))
        if done.state != pipeline_pb.PipelineRun.SUCCEEDED:
            raise PenstockError(f"The pipeline failed: {done.reason}")
        return done

    def _read_pipeline(self, run: pipeline_pb.PipelineRun) -> None:
        steps = {step.id: step for step in run.steps}
        metrics = steps["evaluate"].outputs.fields["metrics"].struct_value.fields
        self.facts["accuracy_after"] = metrics["accuracy"].number_value
        self.facts["correlation_id"] = run.correlation_id
        self.facts["cause"] = run.causes[-1].event_id
        self.facts["pipeline_run"] = run.name
        revision = steps["deploy"].resource
        self.facts["models"][int(revision.rsplit("/", 1)[1])] = (
            steps["train"].outputs.fields["model_version"].string_value
        )

    def _newest_revision(self) -> int:
        return int(max(self.facts["models"]))

    def _trace(self, traffic: Traffic) -> None:
        """The last prediction of the new revision, traced to the records that made the difference."""
        newest = self._newest_revision()
        last = next(r for r in reversed(traffic.seen) if r.prediction and r.revision == newest)
        self.facts["prediction"] = last.prediction
        writes = self.client.last_writes
        request = lineage_pb.TraceRequest(name=last.prediction, at_least=writes)
        deadline = time.monotonic() + 20
        graph = lineage_pb.TraceResponse()
        # What the pipeline wrote is not among this client's writes: wait for the whole path to be known.
        while not {"model_version", "run", "dataset_version"} <= {node.kind for node in graph.nodes}:
            try:
                graph = self.client.lineage.Trace(request)
            except NotFound:  # not even the revision is
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        records = self.client.lineage.ListTracedRecords(
            lineage_pb.ListTracedRecordsRequest(name=last.prediction, page_size=1000)
        )
        self.facts["graph"], self.facts["records"] = graph, records

    def download_models(self) -> dict[int, Path]:
        """The models of all revisions, below the demo's folder."""
        folders = {}
        for revision, name in self.facts["models"].items():
            folder = self.folder / f"model-of-revision-{revision}"
            folder.mkdir(parents=True, exist_ok=True)
            version = self.client.training.GetModelVersion(training_pb.GetModelVersionRequest(name=name))
            for file in version.files:
                request = training_pb.ReadModelFileRequest(name=name, path=file.path)
                stream = self.client.training.ReadModelFile(request)
                save_stream(safe_join(folder, file.path), (part.data for part in stream), file.digest)
            folders[revision] = folder
        return folders
