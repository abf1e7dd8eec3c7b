"""A run's attempt in the words of the executor."""

from __future__ import annotations

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.jobs.spec import Algorithm, Archive, AttemptRef, Code, Git, JobSpec, Report
from services.training import model
from services.training.datasets import job_input
from services.training.model import Run

GRACE_SECONDS = 10.0
PREFIX = "run."  # of the ids of its jobs: other services' lie in the same folder


def prefix(run: str, attempt: int) -> str:
    """Where in the object store an attempt's result belongs."""
    return f"{run}/attempts/{attempt}"


def ref_of(run: Run, attempt: int = 0) -> AttemptRef:
    """An attempt of a run, the current one by default."""
    number = attempt or run.attempt
    return AttemptRef(job_id(run.name), number, prefix(run.name, number))


def job_id(run: str) -> str:
    """The id of a run's job."""
    resource = names.parse(run, kind="run")
    return f"{PREFIX}{resource.project}.{resource.id}"


def name_of(job: str) -> str:
    """The name of the run that a job of this service works for."""
    project, _, id = job.removeprefix(PREFIX).partition(".")
    return names.build("run", project, id)


def spec_of(run: Run, manifest: pb.Manifest, report: Report | None, *, local_code: bool) -> JobSpec:
    """The current attempt, ready to start."""
    return JobSpec(
        job=job_id(run.name),
        resource=run.name,
        project=run.project,
        attempt=run.attempt,
        output_prefix=prefix(run.name, run.attempt),
        code=_code(run.code),
        command=run.command,
        parameters=run.parameters,
        inputs=(job_input(manifest),),
        resources=run.resources,
        base_model=run.base_artifact,
        expects_model=run.expects_model,
        allow_local_code=local_code,
        grace=GRACE_SECONDS,
        report=report,
    )


def _code(code: model.Code) -> Code:
    if code.git is not None:
        return Git(code.git.url, code.git.ref, code.git.commit, code.git.subdirectory)
    return Archive(code.archive) if code.archive else Algorithm(code.algorithm)
