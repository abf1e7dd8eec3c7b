"""Files that commands take: YAML and JSON, with errors that name the line."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.errors import InvalidArgument


@contextmanager
def writing(target: Path, field: str = "to") -> Iterator[None]:
    """A block that writes to a place which the user named; raises InvalidArgument where nothing can be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        raise InvalidArgument(f"{target} cannot be written: {error.strerror or error}.", field=field) from None


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
    except (yaml.YAMLError, ValueError) as error:  # a date or a number that cannot be
        raise InvalidArgument(f"{path} is not YAML: {error}", field=field) from None
    except RecursionError:
        raise InvalidArgument(f"{path} is nested too deeply.", field=field) from None


def read_json(path: Path, field: str = "from") -> Any:
    """One JSON document; raises InvalidArgument with the line that is wrong."""
    return parse_json(read_text(path, field), str(path), field)


def parse_json(text: str, what: str, field: str) -> Any:
    """One JSON document in a text, named `what`; raises InvalidArgument with the line that is wrong."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"{what} is not JSON: {error}", field=field) from None
    except RecursionError:
        raise InvalidArgument(f"{what} is nested too deeply.", field=field) from None
