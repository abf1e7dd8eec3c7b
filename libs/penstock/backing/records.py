"""The files of a managed process in its home: record, lock, log, and whose turn it is to start it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from penstock.backing.identity import Identity

SUPERVISOR = "supervisor"  # the process that keeps all others up
NO_BOOT = ""  # in the identity of a process that is no concern of this home
_LOG_LIMIT = 16 * 2**20
_LOGS_KEPT = 3  # long ones of earlier starts

Facts = dict[str, str | int]


def record_path(home: Path, name: str) -> Path:
    """Where the identity of the process `name` lies."""
    return home / "run" / f"{name}.json"


def lock_path(home: Path, name: str) -> Path:
    """What the process `name` and its children hold locked while they live."""
    return home / "run" / f"{name}.lock"


def log_path(home: Path, name: str) -> Path:
    """Where the output of the process `name` goes."""
    return home / "logs" / f"{name}.log"


def read_record(home: Path, name: str) -> tuple[Identity, Facts] | None:
    """The recorded identity and facts of `name`, dead or alive; None if there is none that can be read.

    In a copy of a home, the record is about a process of the original. There it names nobody: it is as if it were of
    another boot, and only the facts are of use.
    """
    try:
        data = json.loads(record_path(home, name).read_text(encoding="utf-8"))
        boot = str(data["boot_id"]) if _is_lock_of(home, name, data) else NO_BOOT
        return Identity(int(data["pid"]), int(data["started"]), boot, str(data["marker"])), dict(data["facts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _is_lock_of(home: Path, name: str, record: Mapping[str, object]) -> bool:
    """Whether the process of a record locked this home's file: a home that was moved has the same one, a copy not."""
    try:
        file = lock_path(home, name).stat()
    except FileNotFoundError:
        return False
    return record["lock"] == [file.st_dev, file.st_ino]


def log_size(home: Path, name: str) -> int:
    """The size of its log, in bytes; one that has become long is put aside first."""
    path = log_path(home, name)
    if not path.exists():
        return 0
    if path.stat().st_size <= _LOG_LIMIT:
        return path.stat().st_size
    for number in range(_LOGS_KEPT, 1, -1):
        older = path.with_suffix(f".log.{number - 1}")
        if older.exists():
            older.replace(path.with_suffix(f".log.{number}"))
    path.replace(path.with_suffix(".log.1"))
    return 0


@contextmanager
def turn_of(home: Path, name: str) -> Iterator[None]:
    """Of several who would start a process at once, one at a time."""
    (home / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "run" / f"{name}.starting").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
