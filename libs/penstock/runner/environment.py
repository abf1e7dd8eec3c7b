"""What a job ran with, so that a result can be explained, and repeated, later."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from typing import Any


@functools.cache
def packages() -> tuple[str, ...]:
    """The installed distributions as "name==version", sorted. Read once a process: it costs some milliseconds."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions() if d.metadata["Name"]}
    return tuple(sorted(found, key=str.lower))


def describe(isolation: str) -> dict[str, Any]:
    """Python, platform and packages of this interpreter, and how the command was kept apart."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": list(packages()),
        "isolation": isolation,
    }
