"""What a new run must satisfy before it is accepted, each complaint with the field it is about."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock import names
from penstock.algorithms.catalogue import CATALOGUE
from penstock.errors import FieldViolation, InvalidArgument, PenstockError
from penstock.jobs.spec import Git, Resources
from penstock.objects import safe_join
from penstock.runner.git import split_url
from services.training.model import Code, Run

MAX_PARAMETERS = 64 << 10  # bytes of JSON
MAX_COMMAND = 64  # words
MAX_LABELS = 64
MAX_RETRIES = 10
MAX_TIMEOUT = 30 * 24 * 3600.0
MIN_MEMORY = 64 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Limits:
    """What an attempt may ask for (`cores`; `memory` in bytes), and whether code may lie on this machine."""

    cores: float
    local_code: bool
    memory: int


def check_run(run: Run, limits: Limits) -> None:
    """Raise InvalidArgument with every complaint that needs no other service."""
    violations = [
        *_name(run.dataset_version, "dataset_version", "dataset_version"),
        *_code(run.code, limits),
        *_command(run),
        *_parameters(run),
        *_resources(run.resources, limits),
        *_model(run),
        *_labels(run.labels),
    ]
    if violations:
        raise InvalidArgument(" ".join(v.description for v in violations), violations=violations)


def _wrong(field: str, text: str) -> FieldViolation:
    return FieldViolation(f"run.{field}", text)


def _name(text: str, kind: str, field: str) -> Iterator[FieldViolation]:
    try:
        names.parse(text, kind=kind, field=f"run.{field}")
    except PenstockError as error:
        yield from error.violations


def _code(code: Code, limits: Limits) -> Iterator[FieldViolation]:
    given = [
        kind for kind, value in (("algorithm", code.algorithm), ("git", code.git), ("archive", code.archive)) if value
    ]
    if len(given) != 1:
        yield _wrong("code", "Say which code to run: a built-in algorithm, a Git repository or a code archive.")
    elif code.git is not None:
        yield from _git(code.git, limits)
    elif code.archive and not _DIGEST.fullmatch(code.archive):
        yield _wrong("code.archive", "The digest of a code archive looks like sha256:<64 hex digits>.")
    elif code.algorithm:
        yield from _algorithm(code.algorithm)


def _algorithm(name: str) -> Iterator[FieldViolation]:
    trainers = [found.name for found in CATALOGUE.values() if found.kind == "trainer"]
    if name not in trainers:
        yield _wrong("code.algorithm", f"'{name[:80]}' is no built-in trainer: there are {', '.join(trainers)}.")


def _git(git: Git, limits: Limits) -> Iterator[FieldViolation]:
    try:
        parts = split_url(git.url)
    except InvalidArgument as error:
        yield _wrong("code.git.url", error.message)
        return
    local = git.url.startswith("/") or parts.scheme == "file"
    if local and not limits.local_code:
        yield _wrong("code.git.url", "A path is possible on an embedded platform only: give an https URL.")
    elif not local and (parts.scheme != "https" or not parts.hostname):
        yield _wrong("code.git.url", f"'{git.url[:120]}' is no https URL (and no absolute path of this machine).")
    elif parts.username or parts.password:
        yield _wrong("code.git.url", "Put no user or password into the URL: it would be stored and shown.")
    if git.subdirectory:
        yield from _path(git.subdirectory, "code.git.subdirectory")


def _path(text: str, field: str) -> Iterator[FieldViolation]:
    try:
        safe_join(Path("/code"), text, field=f"run.{field}")
    except InvalidArgument as error:
        yield from error.violations


def _command(run: Run) -> Iterator[FieldViolation]:
    if run.code.algorithm and run.command:
        yield _wrong("command", "A built-in algorithm takes no command: leave it out, or give code of your own.")
    elif not run.code.algorithm and not (run.command and run.command[0]):
        yield _wrong("command", "Say what to run in the code's directory, such as `python train.py`.")
    elif len(run.command) > MAX_COMMAND or any("\x00" in word or len(word) > 4096 for word in run.command):
        yield _wrong("command", f"A command has at most {MAX_COMMAND} words of 4,096 characters, without NUL.")


def _parameters(run: Run) -> Iterator[FieldViolation]:
    try:
        size = len(json.dumps(run.parameters, allow_nan=False))
    except ValueError:
        yield _wrong("parameters", "NaN and infinities are no JSON: leave such a parameter out, or use a string.")
        return
    if size > MAX_PARAMETERS:
        yield _wrong("parameters", f"Parameters have at most {MAX_PARAMETERS} bytes as JSON: put data into a dataset.")
    elif run.code.algorithm in CATALOGUE:
        try:
            CATALOGUE[run.code.algorithm].parse(run.parameters, prefix="run.parameters")
        except InvalidArgument as error:
            yield from error.violations


def _resources(resources: Resources, limits: Limits) -> Iterator[FieldViolation]:
    if not (math.isfinite(resources.cpu) and 0 < resources.cpu <= limits.cores):
        yield _wrong("resources.cpu", f"Ask for more than 0 and at most {limits.cores:g} cores, not {resources.cpu:g}.")
    if resources.memory and not MIN_MEMORY <= resources.memory <= limits.memory:
        yield _wrong(
            "resources.memory",
            f"Ask for {MIN_MEMORY >> 20} to {limits.memory >> 20:,} MiB, or for 0 (no limit), "
            f"not {resources.memory / 2**20:,.6g}.",
        )
    if not 0 <= resources.timeout <= MAX_TIMEOUT:
        yield _wrong("resources.timeout", "A timeout is between 0 (none) and 30 days.")


def _model(run: Run) -> Iterator[FieldViolation]:
    if run.model:
        try:
            names.check_id(run.model, "run.model")
        except InvalidArgument as error:
            yield from error.violations
    if run.base:
        yield from _name(run.base, "model_version", "base")
    if run.trial:
        yield from _name(run.trial, "trial", "trial")
    if not 0 <= run.max_retries <= MAX_RETRIES:
        yield _wrong("max_retries", f"An attempt is repeated 0 to {MAX_RETRIES} times.")


def _labels(labels: dict[str, str]) -> Iterator[FieldViolation]:
    if len(labels) > MAX_LABELS or any(not key or len(key) > 128 or len(value) > 1024 for key, value in labels.items()):
        yield _wrong("labels", f"A run has at most {MAX_LABELS} labels: keys of 1 to 128 characters, values of 1,024.")
