"""What steps do: each action makes a resource of another service and follows it to its end.

Creating is idempotent by a request id derived from the run, the step and the try, so doing it again after a crash
finds what is there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf import json_format

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub
from penstock.api.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from penstock.api.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from penstock.api.serving.v1 import serving_service_pb2 as serving_pb
from penstock.api.serving.v1.serving_service_pb2_grpc import ServingServiceStub
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceStub
from penstock.api.tuning.v1 import tuning_service_pb2 as tuning_pb
from penstock.api.tuning.v1.tuning_service_pb2_grpc import TuningServiceStub
from penstock.errors import PenstockError
from penstock.rpc.channels import Channels
from penstock.sdk.documents import parse_duration, parse_mapping, parse_whole, parse_wholes
from penstock.sdk.studies import parse_objective, parse_sampler, parse_space


class StepFailed(PenstockError):
    """The resource that a step made did not end well."""


@dataclass(frozen=True)
class Outcome:
    """What is known of a step's resource: whether it ended, and what later steps may refer to."""

    ended: bool
    outputs: Mapping[str, Any]


class Action(Protocol):
    """One kind of step. If it is not `cancellable`, its resource is left to end, and never made to be cancelled."""

    cancellable: bool

    async def start(self, project: str, settings: Mapping[str, Any], request_id: str) -> str:
        """Make the resource, or find the one made under `request_id`; answers its name."""

    def follow(self, resource: str) -> AsyncGenerator[Outcome, None]:
        """Its state as it changes; raises StepFailed where it does not end well."""

    async def cancel(self, resource: str) -> None:
        """Stop it."""


class References:
    """Names as people write them in settings, resolved to full ones."""

    def __init__(self, channels: Channels) -> None:
        self._datasets = channels.stub(DatasetServiceStub, "dataset")
        self._training = channels.stub(TrainingServiceStub, "training")

    async def dataset_version(self, project: str, text: str, field: str) -> str:
        """`digits@3`, `digits` (its head) or a full name."""
        if text.startswith("projects/"):
            return str(names.parse(text, kind="dataset_version", field=field))
        base, _, number = text.partition("@")
        if not number:
            name = names.build("dataset", project, names.check_id(base, field))
            number = str((await self._datasets.GetDataset(dataset_pb.GetDatasetRequest(name=name))).head)
        return str(names.parse(names.build("dataset_version", project, base, number), field=field))

    async def model_version(self, project: str, text: str, field: str) -> str:
        """`digits@3`, `digits` (its newest version) or a full name."""
        if text.startswith("projects/"):
            return str(names.parse(text, kind="model_version", field=field))
        base, _, number = text.partition("@")
        if not number:
            name = names.build("model", project, names.check_id(base, field))
            number = str((await self._training.GetModel(training_pb.GetModelRequest(name=name))).latest_version)
        return str(names.parse(names.build("model_version", project, base, number), field=field))


class Train:
    """`train`: a training run."""

    cancellable = True

    def __init__(self, channels: Channels) -> None:
        self._api = channels.stub(TrainingServiceStub, "training")
        self._references = References(channels)

    async def start(self, project: str, settings: Mapping[str, Any], request_id: str) -> str:
        """Queue the run."""
        version = await self._references.dataset_version(project, str(settings["dataset"]), "train.dataset")
        run = training_pb.Run(
            dataset_version=version,
            code=training_pb.Code(algorithm=str(settings["algorithm"])),
            parameters=parse_mapping(settings.get("parameters"), "train.parameters"),
            model=str(settings.get("model") or names.parse(version)["dataset"]),
        )
        made = await self._api.CreateRun(
            training_pb.CreateRunRequest(parent=names.build("project", project), run=run, request_id=request_id)
        )
        return made.name

    async def follow(self, resource: str) -> AsyncGenerator[Outcome, None]:
        """The run until it ends."""
        async for run in self._api.WatchRun(training_pb.WatchRunRequest(name=resource)):
            state = training_pb.Run.State.Name(run.state)
            if state in ("FAILED", "CANCELLED"):
                raise StepFailed(f"the run {state.lower()}: {run.reason}")
            outputs = {"run": run.name, "model_version": run.model_version, "metrics": dict(run.metrics)}
            yield Outcome(state == "SUCCEEDED", outputs)

    async def cancel(self, resource: str) -> None:
        """Cancel the run."""
        await self._api.CancelRun(training_pb.CancelRunRequest(name=resource))


class Tune:
    """`tune`: a study."""

    cancellable = True

    def __init__(self, channels: Channels) -> None:
        self._api = channels.stub(TuningServiceStub, "tuning")
        self._references = References(channels)

    async def start(self, project: str, settings: Mapping[str, Any], request_id: str) -> str:
        """Start the study."""
        version = await self._references.dataset_version(project, str(settings["dataset"]), "tune.dataset")
        study = tuning_pb.Study(
            dataset_version=version,
            code=training_pb.Code(algorithm=str(settings["algorithm"])),
            parameters=parse_mapping(settings.get("parameters"), "tune.parameters"),
            space=parse_space(settings["space"]),
            objective=parse_objective(settings["objective"]),
            max_trials=parse_whole(settings.get("trials", 20), "tune.trials"),
            parallelism=parse_whole(settings.get("parallelism", 1), "tune.parallelism"),
            sampler=parse_sampler(settings.get("sampler")),
            model=str(settings.get("model") or names.parse(version)["dataset"]),
        )
        made = await self._api.CreateStudy(
            tuning_pb.CreateStudyRequest(parent=names.build("project", project), study=study, request_id=request_id)
        )
        return made.name

    async def follow(self, resource: str) -> AsyncGenerator[Outcome, None]:
        """The study until it ends."""
        async for study in self._api.WatchStudy(tuning_pb.WatchStudyRequest(name=resource)):
            state = tuning_pb.Study.State.Name(study.state)
            if state in ("FAILED", "CANCELLED"):
                raise StepFailed(f"the study {state.lower()}: {study.reason}")
            outputs = {
                "study": study.name,
                "model_version": study.model_version,
                "best_trial": study.best_trial,
                "best_value": study.best_value,
            }
            yield Outcome(state == "SUCCEEDED", outputs)

    async def cancel(self, resource: str) -> None:
        """Stop the study."""
        await self._api.CancelStudy(tuning_pb.CancelStudyRequest(name=resource))


class Evaluate:
    """`evaluate`: an evaluation; a verdict that fails ends the run."""

    cancellable = True

    def __init__(self, channels: Channels) -> None:
        self._api = channels.stub(EvaluationServiceStub, "evaluation")
        self._references = References(channels)

    async def start(self, project: str, settings: Mapping[str, Any], request_id: str) -> str:
        """Start the evaluation."""
        baseline = str(settings.get("baseline") or "")
        if baseline and not baseline.startswith("projects/"):
            is_version = "@" in baseline
            baseline = (
                await self._references.model_version(project, baseline, "evaluate.baseline")
                if is_version
                else names.build("endpoint", project, names.check_id(baseline, "evaluate.baseline"))
            )
        evaluation = evaluation_pb.Evaluation(
            model_version=await self._references.model_version(project, str(settings["model"]), "evaluate.model"),
            dataset_version=await self._references.dataset_version(
                project, str(settings["dataset"]), "evaluate.dataset"
            ),
            rule=str(settings.get("rule") or ""),
            baseline=baseline,
        )
        made = await self._api.CreateEvaluation(
            evaluation_pb.CreateEvaluationRequest(
                parent=names.build("project", project), evaluation=evaluation, request_id=request_id
            )
        )
        return made.name

    async def follow(self, resource: str) -> AsyncGenerator[Outcome, None]:
        """The evaluation until it ends."""
        async for found in self._api.WatchEvaluation(evaluation_pb.WatchEvaluationRequest(name=resource)):
            state = evaluation_pb.Evaluation.State.Name(found.state)
            if state in ("FAILED", "CANCELLED"):
                raise StepFailed(f"the evaluation {state.lower()}: {found.reason}")
            if state == "SUCCEEDED" and found.rule and not found.verdict.passed:
                raise StepFailed(f"the verdict failed: {found.verdict.reason}")
            outputs = {
                "evaluation": found.name,
                "passed": found.verdict.passed,
                "metrics": dict(found.metrics),
                "verdict": json_format.MessageToDict(found.verdict),
            }
            yield Outcome(state == "SUCCEEDED", outputs)

    async def cancel(self, resource: str) -> None:
        """Cancel the evaluation."""
        await self._api.CancelEvaluation(evaluation_pb.CancelEvaluationRequest(name=resource))


class Deploy:
    """`deploy`: a revision that takes an endpoint's traffic."""

    cancellable = False

    def __init__(self, channels: Channels) -> None:
        self._api = channels.stub(ServingServiceStub, "serving")
        self._references = References(channels)

    async def start(self, project: str, settings: Mapping[str, Any], request_id: str) -> str:
        """Begin the shift."""
        endpoint = str(settings["endpoint"])
        if not endpoint.startswith("projects/"):
            endpoint = names.build("endpoint", project, names.check_id(endpoint, "deploy.endpoint"))
        request = serving_pb.DeployModelRequest(
            name=endpoint,
            model_version=await self._references.model_version(project, str(settings["model"]), "deploy.model"),
            steps=parse_wholes(settings.get("steps"), "deploy.steps"),
            request_id=request_id,
        )
        if "hold" in settings:
            request.hold.CopyFrom(parse_duration(settings["hold"], "deploy.hold"))
        return (await self._api.DeployModel(request)).name

    async def follow(self, resource: str) -> AsyncGenerator[Outcome, None]:
        """The revision until it serves."""
        async for revision in self._api.WatchRevision(serving_pb.WatchRevisionRequest(name=resource)):
            state = serving_pb.Revision.State.Name(revision.state)
            if state == "FAILED":
                raise StepFailed(f"the revision failed: {revision.reason}")
            # A revision that was superseded served before; to the pipeline that is done.
            ended = state in ("SERVING", "DRAINING", "REMOVED")
            yield Outcome(ended, {"revision": revision.name, "model_version": revision.model_version})

    async def cancel(self, resource: str) -> None:
        """A shift is short and safe at each step, so it is left to end."""


def actions(channels: Channels) -> dict[str, Action]:
    """All actions by name."""
    return {
        "train": Train(channels),
        "tune": Tune(channels),
        "evaluate": Evaluate(channels),
        "deploy": Deploy(channels),
    }
