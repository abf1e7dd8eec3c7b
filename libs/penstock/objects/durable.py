"""Files that survive a power cut: written beside, fsynced, renamed into place, and their folders fsynced too.

`write` is the one function through which stored bytes change. Tests inject faults there, at the k-th write.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from penstock.errors import ResourceExhausted

T = TypeVar("T")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def write(operation: Callable[[], T]) -> T:
    """Run the operation that changes stored bytes: each durable write of the object store passes here, once."""
    return operation()


def replace_file(path: Path, chunks: Iterable[bytes], scratch: Path) -> None:
    """Make `path` hold `chunks`, wholly or not at all, durable on return. `scratch` is a folder on the same disk.

    Raises ResourceExhausted when the disk is full; nothing is left behind then.
    """
    temporary = scratch / f"{os.getpid()}-{secrets.token_hex(8)}"
    try:
        make_folder(scratch)
        make_folder(path.parent)
        with open(temporary, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise ResourceExhausted(
                f"The disk that holds {scratch.parent} is full: free some space (or raise the quota) and try again."
            ) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, each durable in its parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """fsync a folder, so that names put into it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
