"""What a job ran with, so that a result can be explained, and repeated, later."""

from __future__ import annotations

import functools
import os
import platform
import sys
from typing import Any

_SUFFIX = ".dist-info"  # <name>-<version>.dist-info, with every other "-" written as "_"


@functools.cache
def packages() -> tuple[str, ...]:
    """The installed distributions as "name==version", sorted, from the names of their folders (opening all is slow)."""
    folders = [folder for folder in sys.path if os.path.isdir(folder)]
    names = {name for folder in folders for name in os.listdir(folder) if name.endswith(_SUFFIX)}
    return tuple(sorted((name.removesuffix(_SUFFIX).replace("-", "==") for name in names), key=str.lower))


def describe(isolation: str) -> dict[str, Any]:
    """Python, platform and packages of this interpreter, and how the command was kept apart."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": list(packages()),
        "isolation": isolation,
    }
