"""The training service as a study uses it: a run per trial, on behalf of the study's author."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from penstock import names
from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.errors import FailedPrecondition
from penstock.rpc.channels import on_behalf_of
from penstock.rpc.structs import to_struct
from services.tuning.model import Study, Told, Trial

if TYPE_CHECKING:
    from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceAsyncStub

_ENDED = (pb.Run.SUCCEEDED, pb.Run.FAILED, pb.Run.CANCELLED)


class Trainings:
    """Creates, reads and cancels the runs of trials; all calls may be made again."""

    def __init__(self, stub: TrainingServiceAsyncStub) -> None:
        self._stub = stub

    async def check(self, study: Study, parameters: dict[str, Any]) -> pb.Run:
        """The run of a trial with these parameters as it would be queued. Raises what is wrong with it."""
        run = self._run(study, parameters)
        with on_behalf_of(study.project, study.author):
            request = pb.CreateRunRequest(parent=f"projects/{study.project}", run=run, validate_only=True)
            return await self._stub.CreateRun(request)

    async def create(self, study: Study, trial: Trial) -> str:
        """The name of the trial's run, made unless it is there. Raises InvalidArgument, NotFound and the like."""
        run = self._run(study, trial.parameters)
        run.trial = trial.name
        request_id = f"{names.parse(study.name).id}/{trial.number}"
        with on_behalf_of(study.project, study.author):
            request = pb.CreateRunRequest(parent=f"projects/{study.project}", run=run, request_id=request_id)
            return (await self._stub.CreateRun(request)).name

    async def outcome(self, study: Study, trial: Trial) -> Told | None:
        """What came of the trial's run; None while it runs."""
        with on_behalf_of(study.project, study.author):
            run = await self._stub.GetRun(pb.GetRunRequest(name=trial.run))
        if run.state not in _ENDED:
            return None
        if run.state == pb.Run.SUCCEEDED:
            return told_by_metrics(study.metric, dict(run.metrics))
        return Told(reason=run.reason, cancelled=run.state == pb.Run.CANCELLED)

    async def cancel(self, study: Study, trial: Trial) -> None:
        """Have the trial's run end, unless it has."""
        with on_behalf_of(study.project, study.author):
            try:
                await self._stub.CancelRun(pb.CancelRunRequest(name=trial.run))
            except FailedPrecondition:
                return  # it has ended by itself

    async def register(self, study: Study) -> str:
        """The name of the model version that the best trial's run made."""
        parent = names.build("model", study.project, study.model)
        with on_behalf_of(study.project, study.author):
            request = pb.CreateModelVersionRequest(parent=parent, run=study.best_run, study=study.name)
            return (await self._stub.CreateModelVersion(request)).name

    def _run(self, study: Study, parameters: dict[str, Any]) -> pb.Run:
        run = json_format.ParseDict(study.template, pb.Run())
        if run.code.git.commit:
            run.code.git.ref = run.code.git.commit  # all trials run the same code, wherever the ref has moved to
        run.parameters.MergeFrom(to_struct(parameters))
        return run


def told_by_metrics(metric: str, metrics: dict[str, float]) -> Told:
    """What a run that succeeded says about its trial: the last value of the objective, if that is a finite number."""
    value = metrics.get(metric)
    if value is None:
        known = ", ".join(sorted(metrics)) or "none"
        return Told(reason=f"The run reported no metric '{metric}'. It reported: {known}.")
    if value != value or value in (float("inf"), float("-inf")):
        return Told(reason=f"The metric '{metric}' is {value}, which cannot be compared.")
    return Told(value=value)
