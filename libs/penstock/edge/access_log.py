"""What Envoy answered: how it writes it down, and how to follow that file while it grows, is rotated or is cut."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from penstock.edge.clusters import METADATA
from penstock.edge.files import Json, typed

_FORMAT = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",  # without the query
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "duration": "%DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "host": "%UPSTREAM_HOST%",
    "revision": f"%UPSTREAM_METADATA({METADATA}:revision)%",
    "project": "%REQ(x-penstock-project)%",
    "endpoint": "%REQ(x-penstock-endpoint)%",
    "request_id": "%REQ(x-request-id)%",
}
_CHUNK = 1 << 20


def config(path: Path) -> Json:
    """The access logger of the listener: a JSON object a line."""
    logger = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog", path=str(path), log_format={"json_format": _FORMAT}
    )
    return {"name": "envoy.access_loggers.file", "typed_config": logger}


@dataclass(frozen=True)
class AccessRecord:
    """One answer of Envoy.

    `revision` is the number of the revision that was asked last, None where none was; `status` the HTTP status and
    `grpc_status` that of gRPC, None for REST; `duration` in seconds; `attempts` how often it was sent to a member.
    """

    time: datetime
    method: str
    path: str
    status: int
    grpc_status: int | None
    duration: float
    attempts: int
    host: str
    project: str
    endpoint: str
    revision: int | None
    request_id: str
    flags: str

    @property
    def predicting(self) -> bool:
        """Whether this was a request for a prediction, not one about a model."""
        return self.path.endswith(("/infer", "/ModelInfer"))


@dataclass(frozen=True)
class Position:
    """Up to where the log was read: the file's inode and the offset in it. The first is Position()."""

    inode: int = 0
    offset: int = 0


def end(path: Path) -> Position:
    """The position after all that is in the file now."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return Position()
    return Position(status.st_ino, status.st_size)


def rotated(path: Path) -> Path:
    """Where the file that was rotated last lies."""
    return path.with_name(path.name + ".1")


def read(path: Path, since: Position) -> tuple[list[AccessRecord], Position]:
    """The records of inference (those for an endpoint) after `since`, and the position after them.

    A file that was rotated meanwhile is read to its end first; one that was cut is read from its beginning. A last
    line that is not finished yet is left for the next call. Records of an older file than the last rotation are lost.
    """
    records: list[AccessRecord] = []
    old = rotated(path)
    if since.inode and old.exists() and old.stat().st_ino == since.inode:
        records.extend(_records(_lines(old, since.offset)[0]))
        since = Position()
    if not path.exists():
        return records, since
    status = path.stat()
    offset = since.offset if status.st_ino == since.inode and status.st_size >= since.offset else 0
    lines, offset = _lines(path, offset)
    records.extend(_records(lines))
    return records, Position(status.st_ino, offset)


def _lines(path: Path, offset: int) -> tuple[list[bytes], int]:
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read()
    finished = content.rfind(b"\n") + 1
    return content[:finished].splitlines(), offset + finished


def _records(lines: list[bytes]) -> Iterator[AccessRecord]:
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:
            continue  # a line that a full disk cut short
        if fields.get("endpoint"):
            yield _record(fields)


def _record(fields: dict[str, Any]) -> AccessRecord:
    revision = str(fields.get("revision") or "").rpartition("/")[2]
    grpc = fields.get("grpc_status")
    return AccessRecord(
        time=datetime.fromisoformat(fields["time"]),
        method=fields.get("method") or "",
        path=fields.get("path") or "",
        status=int(fields.get("status") or 0),
        grpc_status=int(grpc) if grpc is not None else None,
        duration=float(fields.get("duration") or 0) / 1000,
        attempts=int(fields.get("attempts") or 0),
        host=fields.get("host") or "",
        project=fields.get("project") or "",
        endpoint=fields["endpoint"],
        revision=int(revision) if revision.isdigit() else None,
        request_id=fields.get("request_id") or "",
        flags=fields.get("flags") or "",
    )


def rotate(path: Path) -> None:
    """Move the file aside (the one before goes away); Envoy must be told to reopen it."""
    if path.exists():
        os.replace(path, rotated(path))
