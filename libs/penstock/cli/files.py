"""Files that commands take: YAML and JSON, with errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock.errors import InvalidArgument


def read_text(path: Path, field: str) -> str:
    """The text of a file; raises InvalidArgument where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}", field=field) from None


def read_yaml(path: Path, field: str = "file") -> Any:
    """One YAML document; raises InvalidArgument with the line that is wrong."""
    import yaml  # only two commands read YAML

    try:
        return yaml.safe_load(read_text(path, field))
    except yaml.YAMLError as error:
        raise InvalidArgument(f"{path} is not YAML: {error}", field=field) from None


def read_json(path: Path, field: str = "from") -> Any:
    """One JSON document; raises InvalidArgument with the line that is wrong."""
    try:
        return json.loads(read_text(path, field))
    except ValueError as error:
        raise InvalidArgument(f"{path} is not JSON: {error}", field=field) from None
