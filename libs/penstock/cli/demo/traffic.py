"""A client that sends predictions without pause and never retries, and what it saw."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from penstock import names
from penstock.cli.demo.digits import infer_request
from penstock.errors import PenstockError
from penstock.sdk.client import Client

PAUSE = 0.004  # seconds between requests: the two cores are also training


@dataclass(frozen=True)
class Request:
    """One request: `at` and `seconds` by the client's clock, `outputs` as KServe v2 tensors, or the `error`."""

    key: str
    at: float
    seconds: float
    input: Sequence[int]
    label: int
    prediction: str = ""
    outputs: Sequence[Mapping[str, Any]] = ()
    error: str = ""

    @property
    def revision(self) -> int:
        """The number of the revision that answered."""
        return int(names.parse(self.prediction, kind="prediction")["revision"])


@dataclass
class Traffic:
    """Sends the records in turn, in a thread, from `start` to `stop`."""

    client: Client
    endpoint: str
    records: Sequence[Mapping[str, Any]]
    seen: list[Request] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the request under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=60)

    def _run(self) -> None:
        endpoint = self.client.endpoint(self.endpoint)
        for record in itertools.cycle(self.records):
            if self._stopping.is_set():
                break
            at, began = time.time(), time.monotonic()
            try:
                answer = endpoint.predict(infer_request(record["pixels"]))
                got: dict[str, Any] = {"prediction": answer.name, "outputs": answer.body["outputs"]}
            except PenstockError as error:
                got = {"error": str(error)}
            seconds = time.monotonic() - began
            self.seen.append(Request(record["id"], at, seconds, record["pixels"], record["label"], **got))
            self._stopping.wait(PAUSE)
        endpoint.close()

    def count(self, revision: int) -> int:
        """How many answers a revision has given so far."""
        return sum(1 for request in list(self.seen) if request.prediction and request.revision == revision)

    def write(self, path: Path) -> None:
        """Keep all requests, one a line."""
        with path.open("w", encoding="utf-8") as file:
            for request in self.seen:
                file.write(json.dumps(asdict(request)) + "\n")


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; 0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
