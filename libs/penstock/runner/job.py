"""One attempt of a job from its inputs to its result: the same on this machine and in a cluster.

The result is one object, written last. Whoever finds none knows that the attempt did not end, whatever else it left.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from penstock.errors import DataCorrupt, InvalidArgument, NotFound, PenstockError
from penstock.jobs.result import Cause, JobResult, JobState
from penstock.jobs.spec import Algorithm, JobSpec
from penstock.objects import ObjectRef, ObjectStore
from penstock.runner import isolation, processes
from penstock.runner.code import fetch_code
from penstock.runner.environment import describe
from penstock.runner.launch import Command, Surroundings, launch
from penstock.runner.log import Log
from penstock.runner.metrics import MetricsFile, MetricsStream
from penstock.runner.outputs import check_model, store_model, store_outputs
from penstock.runner.reporter import Reporter
from penstock.runner.supervise import Ending, Limits, Supervisor
from penstock.runner.workspace import Workspace

FLUSH_SECONDS = 3.0
RESULT_RETRIES = (0.1, 0.5, 2.0, 5.0)
_logger = logging.getLogger(__name__)


class Control(Protocol):
    """What the runner needs of the executor around it."""

    def cancelled(self) -> float | None:
        """The grace in seconds, once somebody wants the job to end; else None. Asked often: must be cheap."""

    def record(self, identity: processes.Identity) -> None:
        """Write down durably who the command is. Called in the process that will become it."""


@dataclass(frozen=True)
class Place:
    """Where an attempt runs. `marker` tells its processes from all others; with `owner`, this process is the attempt's
    alone, and all its descendants belong to the command. `warm` runs a built-in algorithm in this interpreter. `users`
    is a file by which the attempts of a machine keep their users apart.
    """

    workspace: Workspace
    log: Path
    marker: str
    users: Path
    owner: bool
    warm: bool = False


class _Stopped(Exception):
    """The job is over before its command began."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


def run_job(
    spec: JobSpec, objects: ObjectStore, place: Place, control: Control, reporter: Reporter | None
) -> JobResult:
    """Do the job and write its result. Raises only if the result cannot be written: the attempt is lost then."""
    result = _Job(spec, objects, place, control, reporter).run()
    write_result(objects, spec, result)
    shutil.rmtree(place.workspace.root, ignore_errors=True)
    return result


def write_result(objects: ObjectStore, spec: JobSpec, result: JobResult) -> None:
    """Write the result under the attempt's key, with some patience for a disk that is full for a moment."""
    for seconds in (*RESULT_RETRIES, None):
        try:
            return objects.put_named(spec.ref.result_key, result.to_json())
        except (PenstockError, OSError):
            _logger.exception("the result of %s cannot be written", spec.output_prefix)
            if seconds is None:
                raise
            time.sleep(seconds)
    return None


class _Job:
    def __init__(
        self, spec: JobSpec, objects: ObjectStore, place: Place, control: Control, reporter: Reporter | None
    ) -> None:
        self._spec = spec
        self._objects = objects
        self._place = place
        self._control = control
        self._reporter = reporter
        self._log = Log(place.log, spec.log_limit)
        self._phase = Cause.PLATFORM
        self._isolation = isolation.Isolation()
        timeout = spec.resources.timeout
        self._deadline = time.monotonic() + timeout if timeout else None
        self._result = JobResult(JobState.FAILED, datetime.now(UTC), datetime.now(UTC))

    def run(self) -> JobResult:
        try:
            self._try()
        except _Stopped as stopped:
            self._fail(stopped.cause, "")
        except (InvalidArgument, NotFound, DataCorrupt) as error:
            self._fail(self._phase, error.message)
        except (PenstockError, OSError, ValueError) as error:
            _logger.exception("%s failed", self._spec.output_prefix)
            self._fail(Cause.PLATFORM, f"The platform could not do this job: {error}")
        return self._finish()

    def _try(self) -> None:
        spec, workspace = self._spec, self._place.workspace
        workspace.prepare(spec)
        self._phase = Cause.INPUTS
        workspace.fetch_inputs(spec, self._objects, self._go_on)
        self._phase = Cause.CODE
        folder, used = fetch_code(
            spec.code, self._objects, workspace.code, local=spec.allow_local_code, go_on=self._go_on
        )
        self._result = replace(self._result, code=used)
        environment = workspace.environment(spec, self._place.marker)
        command = self._command()
        self._go_on()
        self._phase = Cause.PLATFORM
        own = (workspace.root, workspace.checkpoint)
        with isolation.choose(own, self._place.users) as self._isolation:
            for path in own:
                self._isolation.give(path)
            ending = self._execute(command, folder, environment)
        self._judge(ending)

    def _command(self) -> Command:
        code = self._spec.code
        if isinstance(code, Algorithm):
            if self._place.warm:
                return Command((code.name,), functools.partial(_algorithm, code.name))
            return Command((sys.executable, "-m", "penstock.algorithms", code.name))
        if not self._spec.command:
            raise InvalidArgument("There is no command to run: say which, such as 'python train.py'.", field="command")
        return Command(self._spec.command)

    def _execute(self, command: Command, folder: Path, environment: dict[str, str]) -> Ending:
        workspace = self._place.workspace
        metrics = MetricsStream(
            MetricsFile(workspace.metrics, self._log.note),
            self._place.log.with_name("metrics.jsonl"),
            self._reporter,
            self._log.note,
        )
        reading, writing = os.pipe()
        try:
            surroundings = Surroundings(folder, environment, writing, self._isolation, self._spec.resources.memory)
            pid = launch(command, surroundings, self._control.record)
        finally:
            os.close(writing)
        limits = Limits(self._deadline, self._spec.resources.memory, self._spec.grace)
        supervisor = Supervisor(
            self._log,
            metrics,
            limits,
            marker=self._place.marker,
            cancelled=self._control.cancelled,
            owner=self._place.owner,
        )
        try:
            return supervisor.watch(pid, reading)
        finally:
            os.close(reading)
            metrics.close(FLUSH_SECONDS)
            self._keep(metrics)

    def _keep(self, metrics: MetricsStream) -> None:
        if metrics.batches:
            self._result = replace(self._result, metrics=self._objects.put_file(metrics.kept))

    def _judge(self, ending: Ending) -> None:
        """Turn the command's end and its outputs into a state and a reason."""
        self._result = replace(self._result, exit_code=ending.exit_code, log_tail=self._log.tail())
        if ending.cause is not Cause.NONE or ending.exit_code != 0:
            cause, reason = explain(ending, self._result.log_tail, self._spec)
            self._fail(cause, reason)
        self._phase = Cause.OUTPUTS
        try:
            outputs = store_outputs(self._objects, self._place.workspace.output)
            self._result = replace(self._result, outputs=outputs, model=store_model(self._objects, outputs))
        except (PenstockError, OSError, ValueError):
            if self._result.cause is Cause.NONE:
                raise
            _logger.exception("the outputs of %s cannot be kept", self._spec.output_prefix)
        if self._result.cause is Cause.NONE:
            self._phase = Cause.MODEL
            if self._spec.expects_model:
                check_model(self._place.workspace.output)
            self._result = replace(self._result, state=JobState.SUCCEEDED)

    def _go_on(self) -> None:
        if self._control.cancelled() is not None:
            raise _Stopped(Cause.CANCELLED)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise _Stopped(Cause.TIMEOUT)

    def _fail(self, cause: Cause, reason: str) -> None:
        if cause is Cause.TIMEOUT:
            reason = (
                f"The job took longer than its {self._spec.resources.timeout:g} s. Give it more time, or less to do."
            )
        self._result = replace(self._result, state=JobState.FAILED, cause=cause, reason=reason)

    def _finish(self) -> JobResult:
        # Asked once more at the very end: whoever was told that cancellation is on its way must not see a success.
        if self._result.cause is Cause.CANCELLED or self._control.cancelled() is not None:
            self._result = replace(
                self._result, state=JobState.CANCELLED, cause=Cause.CANCELLED, reason="The job was cancelled."
            )
        self._log.note(f"{self._result.state.lower()} {self._result.reason}".splitlines()[0])
        self._log.close()
        return replace(
            self._result,
            log=self._stored_log(),
            environment=describe(self._isolation.description),
            finished=datetime.now(UTC),
        )

    def _stored_log(self) -> ObjectRef | None:
        try:
            return self._objects.put_file(self._place.log)
        except (PenstockError, OSError):
            _logger.exception("the log of %s cannot be stored", self._spec.output_prefix)
            return None


def explain(ending: Ending, tail: tuple[str, ...], spec: JobSpec) -> tuple[Cause, str]:
    """Why a command did not end well, in words for its author."""
    memory = f"{spec.resources.memory / (1 << 20):g} MiB"
    lines = "\n".join(("", "Its last lines:", *tail)) if tail else " It printed nothing."
    if ending.cause is Cause.MEMORY:
        return Cause.MEMORY, f"Out of memory: the command used more than its {memory}. Give it more.{lines}"
    if ending.cause is not Cause.NONE:
        return ending.cause, ""
    if spec.resources.memory and any(
        word in line for line in tail for word in ("MemoryError", "bad_alloc", "Cannot allocate")
    ):
        return (
            Cause.MEMORY,
            f"Out of memory: the command could not get what it wanted of its {memory}. Give it more.{lines}",
        )
    if ending.exit_code > 128:
        number = ending.exit_code - 128
        hint = " Perhaps the machine was out of memory." if number == 9 else ""
        return Cause.SIGNAL, f"The command was ended by signal {number}.{hint}{lines}"
    return Cause.EXIT_CODE, f"The command ended with exit code {ending.exit_code}.{lines}"


def _algorithm(name: str) -> int:
    from penstock.algorithms import run

    return run(name)
