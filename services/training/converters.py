"""Between the API's messages and the model; no rules live here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.errors import InvalidArgument
from penstock.jobs.spec import Git, Resources
from penstock.rpc.structs import from_struct, to_struct
from penstock.rpc.times import to_timestamp
from penstock.store import Stored
from services.training import facts, model
from services.training.repository import Point
from services.training.versions import Model, ModelVersion

DEFAULT_CPU = 1.0
DEFAULT_TIMEOUT = 24 * 3600.0
DEFAULT_RETRIES = 2


def new_run(message: pb.Run, *, name: str, project: str, author: str, created: datetime) -> model.Run:
    """A run as a request asks for it, with defaults filled in; not checked."""
    return model.Run(
        name=name,
        project=project,
        author=author,
        created=created,
        dataset_version=message.dataset_version,
        code=_code(message.code),
        command=tuple(message.command),
        parameters=from_struct(message.parameters),
        resources=_resources(message.resources),
        model=message.model,
        base=message.base,
        max_retries=message.max_retries if message.HasField("max_retries") else DEFAULT_RETRIES,
        labels=dict(message.labels),
        trial=message.trial,
        reason="waits for the files of its dataset version",
    )


def _code(message: pb.Code) -> model.Code:
    if message.WhichOneof("source") == "git":
        git = message.git
        return model.Code(git=Git(git.url, git.ref, subdirectory=git.subdirectory))
    return model.Code(algorithm=message.algorithm, archive=message.archive)


def _resources(message: pb.Resources) -> Resources:
    try:
        timeout = message.timeout.ToTimedelta() if message.HasField("timeout") else timedelta(seconds=DEFAULT_TIMEOUT)
    except (OverflowError, ValueError) as error:
        raise InvalidArgument("A timeout is between 0 (none) and 30 days.", field="run.resources.timeout") from error
    return Resources(message.cpu or DEFAULT_CPU, message.memory, timeout.total_seconds())


def run_message(stored: Stored[model.Run]) -> pb.Run:
    """The resource, as the API shows it."""
    run = stored.value
    message = pb.Run(
        name=run.name,
        dataset_version=run.dataset_version,
        code=_code_message(run),
        command=run.command,
        parameters=to_struct(run.parameters),
        resources=pb.Resources(cpu=run.resources.cpu, memory=run.resources.memory),
        model=run.model,
        base=run.base,
        max_retries=run.max_retries,
        labels=run.labels,
        trial=run.trial,
        state=pb.Run.State.Value(run.state.value),
        reason=run.reason,
        attempt=run.attempt,
        attempts=[_attempt(attempt) for attempt in run.attempts],
        metrics=facts.numbers(run.metrics),
        artifacts=_artifacts(run.artifacts),
        model_version=run.model_version,
        manifest=run.manifest,
        author=run.author,
        create_time=to_timestamp(run.created),
        start_time=to_timestamp(run.started),
        end_time=to_timestamp(run.ended),
        environment=to_struct(run.environment),
        etag=stored.etag,
        sequence=stored.sequence,
    )
    message.resources.timeout.FromTimedelta(timedelta(seconds=run.resources.timeout))
    return message


def _code_message(run: model.Run) -> pb.Code:
    git = run.code.git
    if git is not None:
        source = pb.GitSource(url=git.url, ref=git.ref, subdirectory=git.subdirectory, commit=git.commit)
        return pb.Code(git=source)
    if run.code.archive:
        return pb.Code(archive=run.code.archive)
    return pb.Code(algorithm=run.code.algorithm)


def _attempt(attempt: model.Attempt) -> pb.Attempt:
    return pb.Attempt(
        number=attempt.number,
        state=pb.Attempt.State.Value(attempt.state.upper()),
        reason=attempt.reason,
        exit_code=attempt.exit_code or 0,
        start_time=to_timestamp(attempt.started),
        end_time=to_timestamp(attempt.ended),
    )


def _artifacts(files: Iterable[model.Artifact]) -> list[pb.Artifact]:
    return [pb.Artifact(path=file.path, digest=file.digest, size=file.size) for file in files]


def model_message(stored: Stored[Model]) -> pb.Model:
    """The resource, as the API shows it."""
    value = stored.value
    return pb.Model(
        name=value.name,
        latest_version=value.latest,
        create_time=to_timestamp(value.created),
        update_time=to_timestamp(value.updated),
        etag=stored.etag,
        sequence=stored.sequence,
    )


def version_message(version: ModelVersion) -> pb.ModelVersion:
    """The resource, as the API shows it."""
    return pb.ModelVersion(
        name=version.name,
        number=version.number,
        run=version.run,
        study=version.study,
        dataset_version=version.dataset_version,
        manifest=version.manifest,
        code_commit=version.code_commit,
        algorithm=version.algorithm,
        parameters=to_struct(version.parameters),
        metrics=facts.numbers(version.metrics),
        signature=to_struct(version.signature),
        labels=version.labels,
        artifact=version.artifact,
        files=_artifacts(version.files),
        author=version.author,
        create_time=to_timestamp(version.created),
        task=version.task,
    )


def metric_message(point: Point) -> pb.Metric:
    """One value of a metric."""
    name, step, value, at = point
    return pb.Metric(name=name, step=step, value=value, time=to_timestamp(datetime.fromtimestamp(at, UTC)))


def points(metrics: Iterable[pb.Metric], now: float) -> list[Point]:
    """What a job reports; without a time of its own a value is of `now` (seconds since 1970)."""
    return [(m.name, m.step, m.value, m.time.ToNanoseconds() / 1e9 if m.HasField("time") else now) for m in metrics]
