"""Metrics of a running job: from the JSON lines that any language can append, to numbered batches, to a reporter.

A line is either {"name": "loss", "value": 0.3, "step": 7} or {"step": 7, "loss": 0.3, "accuracy": 0.9}. `step` (a whole
number, 0 if left out) and `at` (seconds since 1970, now if left out) are reserved. NaN, Infinity and -Infinity may be
written as JSON strings or as Python's json does.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.runner.reporter import Point, Refused, Reporter

MAX_BATCH = 1000
BATCH_SECONDS = 0.5
MAX_LINE = 1 << 20
MAX_POINTS = 1_000_000  # of a job: the platform reads them all when the job ends
MAX_NAMES = 1_000
BACKOFF_SECONDS = (0.2, 10.0)
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def parse_line(line: bytes, now: float) -> list[Point]:
    """The points of one line. Raises ValueError that says what is wrong with it."""
    body = json.loads(line)
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    step, at = body.pop("step", 0), body.pop("at", now)
    if isinstance(step, bool) or not isinstance(step, int | float) or step != int(step) or not 0 <= step < 2**63:
        raise ValueError("step must be a whole number that is not negative")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 2**34:
        raise ValueError("at must be seconds since 1970")
    if isinstance(body.get("name"), str) and "value" in body:
        body = {body["name"]: body["value"]}
    return [Point(_name(name), int(step), _value(name, value), float(at)) for name, value in body.items()]


def _name(name: str) -> str:
    if not 1 <= len(name) <= 256 or not name.isprintable():
        raise ValueError("a metric's name must have 1 to 256 printable characters")
    return name


def _value(name: str, value: Any) -> float:
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the value of {name[:80]!r} is not a number")
    return float(value)


class MetricsFile:
    """Reads what is appended to the metrics file. It is opened before the command runs and never by name again.

    After MAX_POINTS only the last value of each metric counts; of more than MAX_NAMES names the later are left out.
    """

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        self._rest = b""
        self._line = 0
        self._complaints = 0
        self._complain = complain
        self._names: set[str] = set()
        self._room = MAX_POINTS
        self._last: dict[str, Point] = {}  # of what there was no room for

    def read(self, *, end: bool = False) -> list[Point]:
        """The points of the lines completed since the last call; with `end`, of a last line without newline too."""
        points: list[Point] = []
        while chunk := os.read(self._file, 1 << 18):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                points += self._taken(self._parse(line))
            if len(self._rest) > MAX_LINE:
                self._rest = b"{"  # no JSON: complained about when its newline comes
        if end:
            points += self._taken(self._parse(self._rest))
            points += self._last.values()
            self._rest, self._last = b"", {}
        return points

    def _taken(self, points: list[Point]) -> list[Point]:
        """Those of a line that there is room for."""
        taken, late = points[: self._room], points[self._room :]
        self._room -= len(taken)
        if late and not self._last:
            self._complain(f"there are more than {MAX_POINTS} metrics: of what follows only the last values are kept")
        self._last |= {point.name: point for point in late}
        return taken

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _parse(self, line: bytes) -> list[Point]:
        self._line += 1
        if not line.strip():
            return []
        try:
            points = parse_line(line, time.time())
            fresh = {point.name for point in points} - self._names
            if len(self._names) + len(fresh) > MAX_NAMES:
                raise ValueError(f"there are more than {MAX_NAMES} names of metrics")
            self._names |= fresh
            return points
        except (ValueError, OverflowError, RecursionError) as error:
            self._complaints += 1
            if self._complaints <= 10:
                self._complain(f"line {self._line} of PENSTOCK_METRICS is left out: {error}")
            return []


class MetricsStream:
    """Cuts points into batches 1, 2, 3, ..., keeps each in a file, and sends them in order from a thread of its own.

    A batch is sent until it is taken or refused; what is unsent when the job ends and `close` gives up is in the file.
    """

    def __init__(
        self, source: MetricsFile, kept: Path, reporter: Reporter | None, complain: Callable[[str], None]
    ) -> None:
        self.kept = kept
        self._source = source
        self._reporter = reporter
        self._complain = complain
        self._pending: list[Point] = []
        self._cut_at = -math.inf
        self._number = 0
        self._unsent: deque[tuple[int, list[Point]]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._troubled = False
        self._thread: threading.Thread | None = None

    @property
    def batches(self) -> int:
        """How many batches were cut."""
        return self._number

    def poll(self, *, end: bool = False) -> None:
        """Take in what the command has written since the last call, and cut a batch if it is time."""
        self._pending += self._source.read(end=end)
        while self._pending and (
            end or len(self._pending) >= MAX_BATCH or time.monotonic() - self._cut_at > BATCH_SECONDS
        ):
            self._cut_at = time.monotonic()
            self._number += 1
            batch, self._pending = self._pending[:MAX_BATCH], self._pending[MAX_BATCH:]
            self._keep(batch)
            self._send(batch)

    def close(self, seconds: float) -> None:
        """Wait at most `seconds` until everything is sent, then give up."""
        self._source.close()
        if self._thread is not None:
            deadline = time.monotonic() + seconds
            with self._wake:
                self._wake.wait_for(lambda: not self._unsent, timeout=seconds)
                self._closing = True
                self._wake.notify_all()
            self._thread.join(max(0.0, deadline - time.monotonic()) + 0.1)
        if self._unsent:
            self._complain(f"{len(self._unsent)} batches of metrics could not be reported; they are in the result")

    def _keep(self, batch: list[Point]) -> None:
        points = [{"name": p.name, "step": p.step, "value": _json_value(p.value), "at": p.at} for p in batch]
        with open(self.kept, "ab") as file:
            file.write(json.dumps({"batch_id": self._number, "points": points}).encode() + b"\n")

    def _send(self, batch: list[Point]) -> None:
        if self._reporter is None:
            return
        with self._wake:
            self._unsent.append((self._number, batch))
            self._wake.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        assert self._reporter is not None
        backoff, most = BACKOFF_SECONDS
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._unsent or self._closing)
                if self._closing:
                    break
                number, batch = self._unsent[0]
            try:
                self._reporter.append_metrics(number, batch)
            except Refused as error:
                self._complain(f"batch {number} of metrics was refused: {error}")
            except Exception as error:  # noqa: BLE001 - whatever hinders a report now, the job goes on and it is sent again
                if not self._troubled:
                    self._troubled = True
                    self._complain(f"metrics cannot be reported now, and will be sent again: {error}")
                with self._wake:
                    self._wake.wait_for(lambda: self._closing, timeout=backoff)
                backoff = min(most, backoff * 2)
                continue
            backoff = BACKOFF_SECONDS[0]
            with self._wake:
                self._unsent.popleft()
                self._wake.notify_all()
        self._reporter.close()


def _json_value(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
