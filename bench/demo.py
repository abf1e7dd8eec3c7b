"""The whole demo, from a fresh home to its table."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from bench.harness import Limit, Options, Result, Row, Spread, say
from penstock.errors import PenstockError

SECONDS, NO_FAILURES = Limit("<=", 90, "s"), Limit("<=", 0, "requests")


def measure(options: Options) -> Result:
    """Run `penstock demo`; it says itself how long it took."""
    summaries = []
    repetitions = options.pick(2, 1)
    for number in range(repetitions):
        say(f"demo: {number + 1} of {repetitions}")
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
            command = [sys.executable, "-m", "penstock.cli", "demo", "--output", "json", "--to", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PenstockError(f"`penstock demo` failed:\n{done.stderr[-1500:]}")
        summaries.append(json.loads(done.stdout))
    failed = [each["failed_requests"] + each["wrong_answers"] for each in summaries]
    reaction = [each["commit_to_served"] for each in summaries]
    note = ", ".join(f"{stage} {took:g}" for stage, took in summaries[-1]["stages"].items())
    rows = [
        Row("demo, in all", Spread.of([each["seconds"] for each in summaries]), SECONDS, unit="s", note=note),
        Row("… commit to new model serving", Spread.of(reaction), unit="s", note="with training, debounce and hold"),
        Row("… requests failed or answered wrongly", Spread.of(failed), NO_FAILURES, unit="requests",
            note=f"of {sum(each['requests'] for each in summaries):,}"),
    ]  # fmt: skip
    return Result("demo", rows, ["`penstock demo --output json`, after `penstock setup`"])
