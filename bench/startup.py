"""How long `penstock up` and `penstock --help` take, and what a platform uses that has nothing to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.harness import Limit, Options, Result, Row, Spread, say, seconds
from bench.usage import idle_rows
from penstock.backing.ports import free_port

READY, HELP = Limit("<=", 8, "s"), Limit("<=", 0.3, "s")


def measure(options: Options) -> Result:
    """Fresh homes, then one that was used before, then that one idle."""
    command_help = [seconds(lambda: _penstock("--help")) for _ in range(options.pick(15, 3) + 1)][1:]
    fresh: list[float] = []
    again: list[float] = []
    usage: list[Row] = []
    repetitions = options.pick(5, 1)
    for number in range(repetitions):
        say(f"startup: home {number + 1} of {repetitions}")
        home = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        try:
            fresh.append(_up(home))
            if number == repetitions - 1:
                usage = idle_rows(home, "idle, nothing deployed", options)
            _penstock("down", "--home", str(home))
            again.append(_up(home))
        finally:
            _penstock("down", "--home", str(home))
            shutil.rmtree(home, ignore_errors=True)
    rows = [
        Row("`penstock up` is ready, fresh home", Spread.of(fresh), READY, unit="s"),
        Row("`penstock up` is ready, home used before", Spread.of(again), READY, unit="s"),
        Row("`penstock --help`", Spread.of(command_help), HELP, unit="s"),
        *usage,
    ]
    return Result("startup", rows, _settings())


def _up(home: Path) -> float:
    return seconds(lambda: _penstock("up", "--home", str(home), "--port", str(free_port()), "--detach"))


def _penstock(*words: str) -> None:
    command = [sys.executable, "-m", "penstock.cli", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _settings() -> Sequence[str]:
    return [
        "`penstock up --detach` from the call to its return: NATS, database, services, Envoy, and the command itself; "
        "Triton's environment was made before",
        "`penstock --help` as a process of its own, files cached",
        "idle: all processes of the home, the supervisor too; PSS counts a page that several processes share once",
    ]
