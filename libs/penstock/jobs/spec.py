"""What a job is, for every executor and the runner. Plain JSON: it is stored, and travels into containers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from penstock.errors import InvalidArgument

MIB = 1 << 20


@dataclass(frozen=True)
class InputFile:
    """One file of an input: its `path` below the input's folder, and the digest of what it holds."""

    path: str
    digest: str
    size: int = 0


@dataclass(frozen=True)
class JobInput:
    """What the command finds in PENSTOCK_INPUT_DIR/<name>/: `files`, those of a `tree` (a manifest's digest), or both.

    `meta`, when given, is written beside them as `input.json`.
    """

    name: str
    files: tuple[InputFile, ...] = ()
    tree: str = ""
    meta: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Algorithm:
    """Code that is part of Penstock: the name of a built-in algorithm. It needs no command."""

    name: str


@dataclass(frozen=True)
class Git:
    """Code in a Git repository: https, or a path of this machine where allowed. `commit` pins what `ref` meant."""

    url: str
    ref: str = ""
    commit: str = ""
    subdirectory: str = ""


@dataclass(frozen=True)
class Archive:
    """Code in a gzipped tar, an object of that digest."""

    digest: str
    subdirectory: str = ""


Code = Algorithm | Git | Archive
_CODE: dict[str, type[Algorithm] | type[Git] | type[Archive]] = {"algorithm": Algorithm, "git": Git, "archive": Archive}


@dataclass(frozen=True)
class Resources:
    """Limits of one attempt: `cpu` cores, `memory` bytes (0: none), `timeout` seconds from its start (0: none)."""

    cpu: float = 1.0
    memory: int = 0
    timeout: float = 0.0


@dataclass(frozen=True)
class Report:
    """Where the runner sends metrics while the job runs: a gRPC address and a token that may do only that."""

    address: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class AttemptRef:
    """Which attempt of which job, and where in the object store its result belongs."""

    job: str
    attempt: int
    output_prefix: str

    @property
    def result_key(self) -> str:
        """The key of the result in the object store; written last."""
        return f"{self.output_prefix}/result.json"


@dataclass(frozen=True)
class JobSpec:
    """One attempt of a job.

    `job` is its id (a folder name), `resource` what it works for (`projects/p/runs/r`), `output_prefix` such as
    `projects/p/runs/r/attempts/1`. `command` runs in the code's folder. `base_model` (a tree's digest) becomes the
    input `base`. `grace` is the time in seconds between SIGTERM and SIGKILL at a timeout; `log_limit` in bytes.
    `report` is a secret and no part of the JSON: an executor hands it over by itself.
    """

    job: str
    resource: str
    project: str
    attempt: int
    output_prefix: str
    code: Code | None = None
    command: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[JobInput, ...] = ()
    resources: Resources = Resources()
    base_model: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    expects_model: bool = True
    allow_local_code: bool = False
    grace: float = 10.0
    log_limit: int = 64 * MIB
    report: Report | None = None

    @property
    def ref(self) -> AttemptRef:
        """The attempt that this describes."""
        return AttemptRef(self.job, self.attempt, self.output_prefix)

    def to_json(self) -> str:
        """The spec as JSON, without `report`."""
        body = asdict(self)
        del body["report"]
        if self.code is not None:
            body["code"]["kind"] = next(kind for kind, cls in _CODE.items() if isinstance(self.code, cls))
        return json.dumps(body)

    @classmethod
    def from_json(cls, text: str | bytes) -> JobSpec:
        """Read what `to_json` wrote. Raises InvalidArgument."""
        try:
            body: dict[str, Any] = json.loads(text)
            if body["code"] is not None:
                body["code"] = _CODE[body["code"].pop("kind")](**body["code"])
            body["inputs"] = tuple(_input(i) for i in body["inputs"])
            body["command"] = tuple(body["command"])
            body["resources"] = Resources(**body["resources"])
            return cls(**body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"This is not a job's specification: {error!r}.", field="spec") from error


def _input(body: dict[str, Any]) -> JobInput:
    return JobInput(body["name"], tuple(InputFile(**f) for f in body["files"]), body["tree"], body["meta"])
