"""Between the API's messages and the model; no rules live here."""

from __future__ import annotations

from datetime import datetime

from google.protobuf import json_format

from penstock import names
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.tuning.v1 import tuning_service_pb2 as pb
from penstock.rpc.structs import from_value, to_struct, to_value
from penstock.rpc.times import to_timestamp
from penstock.store import Stored
from services.tuning.model import Range, Study, Trial
from services.tuning.repository import trial_name


def new_study(message: pb.Study, *, name: str, author: str, created: datetime) -> Study:
    """A study as a request asks for it, with defaults filled in; not checked."""
    resource = names.parse(name, kind="study")
    template = training_pb.Run(
        dataset_version=message.dataset_version,
        code=message.code,
        command=message.command,
        parameters=message.parameters,
        resources=message.resources,
    )
    return Study(
        name=name,
        project=resource.project,
        author=author,
        created=created,
        template=json_format.MessageToDict(template),
        space=tuple(_range(searched) for searched in message.space),
        metric=message.objective.metric,
        maximize=message.objective.direction != pb.Objective.MINIMIZE,
        max_trials=message.max_trials,
        parallelism=message.parallelism or 1,
        sampler="RANDOM" if message.sampler.kind == pb.Sampler.RANDOM else "TPE",
        seed=message.sampler.seed,
        model=message.model or resource.id,
    )


def _range(message: pb.ParameterSpace) -> Range:
    kind = message.WhichOneof("range") or ""
    if kind == "categorical":
        return Range(message.name, kind, choices=tuple(from_value(value) for value in message.categorical.values))
    if kind:
        found = message.float if kind == "float" else message.int
        return Range(message.name, kind, float(found.low), float(found.high), found.log)
    return Range(message.name, kind)


def _space(searched: Range) -> pb.ParameterSpace:
    message = pb.ParameterSpace(name=searched.name)
    if searched.kind == "categorical":
        message.categorical.values.extend(to_value(choice) for choice in searched.choices)
    elif searched.kind == "int":
        message.int.CopyFrom(pb.IntRange(low=int(searched.low), high=int(searched.high), log=searched.log))
    else:
        message.float.CopyFrom(pb.FloatRange(low=searched.low, high=searched.high, log=searched.log))
    return message


def study_message(stored: Stored[Study], running: int) -> pb.Study:
    """The resource, as the API shows it; `running` trials run now."""
    study = stored.value
    run = json_format.ParseDict(study.template, training_pb.Run())
    return pb.Study(
        name=study.name,
        dataset_version=run.dataset_version,
        code=run.code,
        command=run.command,
        parameters=run.parameters,
        resources=run.resources if run.HasField("resources") else None,
        space=[_space(searched) for searched in study.space],
        objective=pb.Objective(
            metric=study.metric, direction=pb.Objective.MAXIMIZE if study.maximize else pb.Objective.MINIMIZE
        ),
        max_trials=study.max_trials,
        parallelism=study.parallelism,
        sampler=pb.Sampler(kind=pb.Sampler.Kind.Value(study.sampler), seed=study.seed),
        model=study.model,
        state=pb.Study.State.Value(study.state.value),
        reason=study.reason,
        trials_running=running,
        trials_completed=study.completed,
        trials_failed=study.failed,
        best_trial=trial_name(study.name, study.best) if study.best else "",
        best_value=study.best_value,
        model_version=study.model_version,
        author=study.author,
        create_time=to_timestamp(study.created),
        end_time=to_timestamp(study.ended),
        etag=stored.etag,
        sequence=stored.sequence,
    )


def trial_message(stored: Stored[Trial]) -> pb.Trial:
    """The resource, as the API shows it."""
    trial = stored.value
    return pb.Trial(
        name=trial.name,
        number=trial.number,
        state=pb.Trial.State.Value(trial.state.value),
        parameters=to_struct(trial.parameters),
        value=trial.value or 0.0,
        run=trial.run,
        reason=trial.reason,
        create_time=to_timestamp(trial.created),
        end_time=to_timestamp(trial.ended),
    )
