"""What a platform's processes use: memory that is theirs (PSS: shared pages are counted once), and processor time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.harness import Limit, Options, Row, Spread, say

MEMORY, PROCESSOR = Limit("<=", 1.5, "GB"), Limit("<=", 5, "% of a core")
_TICKS = os.sysconf("SC_CLK_TCK")


def processes(home: Path) -> list[int]:
    """The processes of a home: those that work in it, or were started with its path."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _belongs(entry, home)]


def _belongs(process: Path, home: Path) -> bool:
    try:
        if int(process.name) == os.getpid():
            return False
        folder = os.readlink(process / "cwd")
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False  # it ended, or is not ours
    return Path(folder).is_relative_to(home) or str(home).encode() in command


def memory(pids: list[int]) -> int:
    """Bytes of memory that they hold together."""
    return sum(_proportional(Path("/proc") / str(pid)) for pid in pids)


def _proportional(process: Path) -> int:
    try:
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it ended
    return 0


def processor_seconds(pids: list[int]) -> float:
    """The processor time that they have used so far."""
    return sum(_ticks(Path("/proc") / str(pid)) for pid in pids) / _TICKS


def _ticks(process: Path) -> int:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0  # it ended
    return int(fields[11]) + int(fields[12])


def idle_rows(home: Path, what: str, options: Options) -> list[Row]:
    """Leave a platform alone and see what it uses."""
    settle, window = options.pick(20, 3), options.pick(30, 3)
    say(f"{what}: {settle} s to settle, {window} s to measure")
    time.sleep(settle)
    pids = processes(home)
    began, before = time.monotonic(), processor_seconds(pids)
    time.sleep(window)
    share = 100 * (processor_seconds(pids) - before) / (time.monotonic() - began)
    held = memory(pids) / 1e9
    note = f"{len(pids)} processes"
    return [
        Row(f"{what}: memory", Spread.of([held]), MEMORY, unit="GB", note=f"{note}, PSS"),
        Row(f"{what}: processor", Spread.of([share]), PROCESSOR, unit="% of a core", note=f"{note}, {window} s"),
    ]
