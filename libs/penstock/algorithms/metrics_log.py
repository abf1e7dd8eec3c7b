"""Appends metrics to the job's metrics file, one JSON line each, so that they can be watched while the job runs."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path


class MetricsLog:
    """Writes `{"name","value","step","at"}` lines, `at` in seconds since 1970.

    NaN and infinities become strings, as JSON has none. Without a file (code run by hand) nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def report(self, name: str, value: float, step: int = 0) -> None:
        """Append one metric."""
        if self._path is None:
            return
        shown: float | str = value
        if not math.isfinite(value):
            shown = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        line = json.dumps({"name": name, "value": shown, "step": step, "at": time.time()})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
