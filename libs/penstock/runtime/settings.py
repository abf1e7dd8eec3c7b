"""The only module that reads the environment. Imports nothing outside the base install."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import InvalidArgument

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


def let_idle_threads_sleep() -> None:
    """Make OpenMP's waiting threads give up their core, unless set otherwise. Call before anything loads OpenMP.

    By default they spin: with other work on the same cores, boosted trees then take four to seven times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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


def data_directory(environ: Mapping[str, str] | None = None) -> Path:
    """What homes of this user share, such as Triton's environment: `$XDG_DATA_HOME/penstock`, else in ~/.local."""
    given = os.environ if environ is None else environ
    return Path(given.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "penstock"


def mongodb_uri(environ: Mapping[str, str] | None = None) -> str | None:
    """A database to use instead of an embedded one: PENSTOCK_MONGODB_URI, if set."""
    given = os.environ if environ is None else environ
    return given.get("PENSTOCK_MONGODB_URI") or None


def debugging(environ: Mapping[str, str] | None = None) -> bool:
    """Whether whoever runs a command wants to see how it fails: PENSTOCK_LOG_LEVEL is `debug`."""
    given = os.environ if environ is None else environ
    return given.get("PENSTOCK_LOG_LEVEL", "").lower() == "debug"


def whole_environment() -> dict[str, str]:
    """This process's environment, for a process that takes its place (such as a detached supervisor)."""
    return dict(os.environ)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


# Nothing of the platform reports to anybody: onnxruntime would, to its maker, unless it is told not to.
NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}


def forbid_telemetry() -> None:
    """Have no library that this process loads, or starts, report its use to its maker."""
    os.environ.update(NO_TELEMETRY)


def inherited(names: Iterable[str]) -> dict[str, str]:
    """Those of these variables that are set: what a process of ours is given of this one's environment."""
    return {name: os.environ[name] for name in names if name in os.environ}


def _path(given: Mapping[str, str], name: str) -> Path | None:
    return Path(given[name]) if given.get(name) else None


@dataclass(frozen=True)
class Settings:
    """What the processes of the platform itself are told: where its parts are, and how to log.

    Unset, everything is that of an embedded platform in `home`, at the ports where it last ran, but for `addresses`:
    those are of services in other processes, `host:port` by short name. `nats_credentials` is a folder of
    `<service>.creds`, or None for a NATS without users.
    """

    home: Path
    url: str
    project: str
    mongodb_uri: str
    nats_url: str
    nats_credentials: Path | None
    objects_url: str
    addresses: Mapping[str, str]
    tls_certificate: Path | None
    tls_key: Path | None
    tls_ca: Path | None
    log_level: str
    log_format: str  # json or text
    log_file: Path | None
    data_dir: Path

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None, *, home: Path | None = None) -> Settings:
        """Read it from the process's environment, or from a mapping like it; `home` goes before PENSTOCK_HOME.

        Raises InvalidArgument for a value that cannot be meant.
        """
        given = os.environ if environ is None else environ
        base = (home or home_directory(given)).expanduser().absolute()
        users = base / "nats" / "users"
        return cls(
            home=base,
            url=given.get("PENSTOCK_URL") or _first_line(base / "url") or DEFAULT_URL,
            project=given.get("PENSTOCK_PROJECT") or DEFAULT_PROJECT,
            mongodb_uri=given.get("PENSTOCK_MONGODB_URI") or f"mongodb://127.0.0.1:{_port(base, 'mongodb', 27017)}",
            nats_url=given.get("PENSTOCK_NATS_URL") or f"nats://127.0.0.1:{_port(base, 'nats', 4222)}",
            nats_credentials=_path(given, "PENSTOCK_NATS_CREDENTIALS") or (users if users.is_dir() else None),
            objects_url=given.get("PENSTOCK_OBJECTS_URL") or (base / "objects").as_uri(),
            addresses=_addresses(given.get("PENSTOCK_ADDRESSES", "")),
            tls_certificate=_path(given, "PENSTOCK_TLS_CERTIFICATE"),
            tls_key=_path(given, "PENSTOCK_TLS_KEY"),
            tls_ca=_path(given, "PENSTOCK_TLS_CA"),
            log_level=_choice(given, "PENSTOCK_LOG_LEVEL", ("info", "debug", "warning", "error")),
            log_format=_choice(given, "PENSTOCK_LOG_FORMAT", ("json", "text")),
            log_file=_path(given, "PENSTOCK_LOG_FILE"),
            data_dir=data_directory(given),
        )


def _port(home: Path, name: str, usual: int) -> int:
    """Where a server of an embedded platform listens, or last did; else the usual port."""
    try:
        return int(json.loads((home / "run" / f"{name}.json").read_text(encoding="utf-8"))["facts"]["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return usual


def _addresses(text: str) -> dict[str, str]:
    """`training=127.0.0.1:9001,tuning=127.0.0.1:9002` as a dict."""
    pairs = [entry.strip().partition("=") for entry in text.split(",") if entry.strip()]
    wrong = next((name for name, equals, address in pairs if not (name and equals and ":" in address)), None)
    if wrong is not None:
        raise InvalidArgument(
            f"PENSTOCK_ADDRESSES: '{wrong}' is not understood; write service=host:port, separated by commas.",
            field="PENSTOCK_ADDRESSES",
        )
    return {name: address for name, _, address in pairs}


def _choice(given: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """The value of a variable with few values, the first of which is the default."""
    value = given.get(name, "").lower() or allowed[0]
    if value not in allowed:
        raise InvalidArgument(f"{name} is '{value}': use one of {', '.join(allowed)}.", field=name)
    return value
