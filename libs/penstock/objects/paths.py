"""The one way from a path that came from outside (an archive, a manifest, a key) to a path on this disk."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.errors import InvalidArgument

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 2048


def safe_join(root: Path, relative: str, *, field: str = "path") -> Path:
    """`root / relative`, only if that is strictly inside `root`, links resolved; else InvalidArgument naming `field`.

    Parts are divided by `/`. Empty, absolute and over-long paths, `.`, `..`, back-slashes and control characters are
    refused.
    """
    problem = _problem(relative)
    if problem:
        raise InvalidArgument(f"{relative[:120]!a} is not an acceptable relative path: {problem}.", field=field)
    base = os.path.realpath(root)
    joined = os.path.join(base, *relative.split("/"))
    if os.path.realpath(joined) == base or not os.path.realpath(joined).startswith(base.rstrip("/") + "/"):
        raise InvalidArgument(f"{relative[:120]!a} leads out of its folder through a link.", field=field)
    return Path(joined)


def _problem(relative: str) -> str | None:
    if not relative:
        return "it is empty"
    if any("\ud800" <= c <= "\udfff" for c in relative):
        return "it is not Unicode text"
    if len(relative.encode()) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    if any(c < " " or c == "\x7f" for c in relative):
        return "it holds a control character"
    if "\\" in relative:
        return "it holds a back-slash (write '/')"
    for part in relative.split("/"):
        if part in ("", ".", ".."):
            return "it is absolute, or has an empty, '.' or '..' part"
        if len(part.encode()) > MAX_COMPONENT_BYTES:
            return f"a part is longer than {MAX_COMPONENT_BYTES} bytes"
    return None
