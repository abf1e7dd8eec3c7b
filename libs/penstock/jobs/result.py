"""The result of an attempt: the one object, written last, that says that it ended and what it made."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from penstock.errors import DataCorrupt
from penstock.objects import ObjectRef


class JobState(enum.StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Cause(enum.StrEnum):
    """Why an attempt did not succeed, for programs. PLATFORM may pass when it is tried again; the others will not."""

    NONE = ""
    CANCELLED = "cancelled"
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    MODEL = "model"
    OUTPUTS = "outputs"
    CODE = "code"
    INPUTS = "inputs"
    PLATFORM = "platform"


@dataclass(frozen=True)
class Output:
    """One file of PENSTOCK_OUTPUT_DIR, by its path there."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True)
class JobResult:
    """What came of an attempt. `reason` is for people; `model` is the digest of the tree of `model/`, if there is one.

    `exit_code` is that of the command (128 + n for signal n, None if it never ran). `log` is the whole log; `metrics`
    holds one JSON line per reported batch, {"batch_id", "points": [{"name", "step", "value", "at"}]}, so that a service
    which missed some can add them under the same ids.
    """

    state: JobState
    started: datetime
    finished: datetime
    cause: Cause = Cause.NONE
    reason: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    model: str = ""
    log: ObjectRef | None = None
    metrics: ObjectRef | None = None
    code: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The result as JSON; times in RFC 3339."""
        body = asdict(self)
        body.update(started=self.started.isoformat(), finished=self.finished.isoformat())
        return json.dumps(body, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> JobResult:
        """Read what `to_json` wrote. Raises DataCorrupt."""
        try:
            body: dict[str, Any] = json.loads(text)
            body.update(
                state=JobState(body["state"]),
                cause=Cause(body["cause"]),
                started=datetime.fromisoformat(body["started"]),
                finished=datetime.fromisoformat(body["finished"]),
                log_tail=tuple(body["log_tail"]),
                outputs=tuple(Output(**o) for o in body["outputs"]),
                log=ObjectRef(**body["log"]) if body["log"] else None,
                metrics=ObjectRef(**body["metrics"]) if body["metrics"] else None,
            )
            return cls(**body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataCorrupt(f"The stored result of an attempt cannot be read: {error!r}.") from error
