"""The only module that reads the environment. Imports nothing outside the base install."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:8420"
DEFAULT_PROJECT = "default"


@dataclass(frozen=True)
class JobEnvironment:
    """What a job's code is given: folders and files, whatever its language.

    `threads` is how many the job may use (the runner sets OMP_NUM_THREADS; else the CPUs that this process may use).
    Files and folders that are not there are None; `input_dir` and `output_dir` default to `inputs` and `outputs` in
    the working directory, so that code also runs by hand.
    """

    input_dir: Path
    output_dir: Path
    params_file: Path | None
    metrics_file: Path | None
    checkpoint_dir: Path | None
    threads: int
    prune_file: Path | None = None  # appears when a trial should give up

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> JobEnvironment:
        """Read it from the process's environment, or from a mapping like it."""
        given = os.environ if environ is None else environ
        count = given.get("OMP_NUM_THREADS", "")
        return cls(
            input_dir=Path(given.get("PENSTOCK_INPUT_DIR") or "inputs"),
            output_dir=Path(given.get("PENSTOCK_OUTPUT_DIR") or "outputs"),
            params_file=_path(given, "PENSTOCK_PARAMS"),
            metrics_file=_path(given, "PENSTOCK_METRICS"),
            checkpoint_dir=_path(given, "PENSTOCK_CHECKPOINT_DIR"),
            threads=int(count) if count.isdigit() and int(count) else len(os.sched_getaffinity(0)),
            prune_file=_path(given, "PENSTOCK_PRUNE"),
        )

    def input(self, name: str) -> Path:
        """The folder of one input."""
        return self.input_dir / name


@dataclass(frozen=True)
class ClientSettings:
    """Where a client finds the platform, and who it is.

    PENSTOCK_URL, PENSTOCK_TOKEN and PENSTOCK_PROJECT, else what the home says:

    `home` is PENSTOCK_HOME, else `~/.penstock`; an embedded platform leaves its address in `<home>/url` and a token
    in `<home>/token`.
    """

    home: Path
    url: str
    token: str
    project: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> ClientSettings:
        """Read it from the process's environment, or from a mapping like it."""
        given = os.environ if environ is None else environ
        home = home_directory(given)
        return cls(
            home=home,
            url=given.get("PENSTOCK_URL") or _first_line(home / "url") or DEFAULT_URL,
            token=given.get("PENSTOCK_TOKEN") or _first_line(home / "token"),
            project=given.get("PENSTOCK_PROJECT") or DEFAULT_PROJECT,
        )


def home_directory(environ: Mapping[str, str] | None = None) -> Path:
    """The home of an embedded platform: PENSTOCK_HOME, else `~/.penstock`."""
    given = os.environ if environ is None else environ
    return Path(given.get("PENSTOCK_HOME") or Path.home() / ".penstock")


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def inherited(names: Iterable[str]) -> dict[str, str]:
    """Those of these variables that are set: what a process of ours is given of this one's environment."""
    return {name: os.environ[name] for name in names if name in os.environ}


def _path(given: Mapping[str, str], name: str) -> Path | None:
    return Path(given[name]) if given.get(name) else None
