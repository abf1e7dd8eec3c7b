"""Fetches a job's code: one commit of a Git repository, or an archive; never more than the files themselves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.errors import NotFound
from penstock.jobs.spec import Algorithm, Archive, Code
from penstock.objects import ObjectStore, safe_join
from penstock.runner.archive import extract
from penstock.runner.git import checkout


def fetch_code(
    code: Code | None, objects: ObjectStore, folder: Path, *, local: bool, go_on: Callable[[], None]
) -> tuple[Path, dict[str, Any]]:
    """Put the code into `folder`; returns where the command is to run and what was used, for the result.

    `local` allows Git repositories that are paths of this machine. Raises InvalidArgument, NotFound, Unavailable.
    """
    if code is None:
        return folder, {}
    if isinstance(code, Algorithm):
        return folder, {"algorithm": code.name}
    if isinstance(code, Archive):
        packed = folder.with_name("code.tar.gz")
        objects.fetch(code.digest, packed)
        extract(packed, folder)
        packed.unlink()
        return _inside(folder, code.subdirectory), {"archive": code.digest}
    commit = checkout(code.url, code.ref, code.commit, folder, local=local, go_on=go_on)
    used = {"url": code.url, "ref": code.ref, "commit": commit, "subdirectory": code.subdirectory}
    return _inside(folder, code.subdirectory), used


def _inside(folder: Path, subdirectory: str) -> Path:
    if subdirectory in ("", "."):
        return folder
    chosen = safe_join(folder, subdirectory.rstrip("/"), field="code.subdirectory")
    if not os.path.isdir(chosen):
        raise NotFound(f"The code has no folder '{subdirectory}'.", field="code.subdirectory")
    return chosen
