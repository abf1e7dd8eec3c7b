"""Unpacks archives of code that come from outside: regular files and folders only, with caps on all sizes."""

from __future__ import annotations

import tarfile
import zlib
from gzip import BadGzipFile
from pathlib import Path
from typing import IO

from penstock.errors import InvalidArgument
from penstock.objects import safe_join

MAX_FILES = 10_000
MAX_BYTES = 512 << 20
MAX_RATIO = 200  # unpacked bytes per packed byte; beyond it an archive is a bomb
RATIO_FLOOR = 4 << 20  # small archives may be as dense as they like
_CHUNK = 1 << 20


def extract(archive: Path, folder: Path) -> None:
    """Unpack a gzipped (or plain) tar into `folder`. Raises InvalidArgument and names what is wrong with it.

    Owners, times and set-uid bits are not taken over; the executable bit is.
    """
    allowed = min(MAX_BYTES, max(RATIO_FLOOR, archive.stat().st_size * MAX_RATIO))
    try:
        # As a stream: nothing is skipped over, so every unpacked byte is counted.
        with tarfile.open(archive, "r|*") as tar:
            total = 0
            for count, member in enumerate(tar, 1):
                total += member.size
                if count > MAX_FILES or total > allowed:
                    raise _bad(f"it unpacks to more than {MAX_FILES} entries or {allowed} bytes")
                _place(tar, member, folder)
    except (tarfile.TarError, EOFError, zlib.error, BadGzipFile, FileExistsError, NotADirectoryError) as error:
        raise _bad(f"it cannot be unpacked: {error}") from error


def _place(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    if not (member.isreg() or member.isdir()):
        raise _bad(f"'{member.name[:100]}' is neither a regular file nor a folder")
    name = member.name.removeprefix("./").rstrip("/")
    if member.isdir() and name in ("", "."):
        return
    path = safe_join(folder, name, field="code.archive")
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # it is a regular file
    with source, open(path, "xb") as target:
        _copy(source, target)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while chunk := source.read(_CHUNK):
        target.write(chunk)


def _bad(problem: str) -> InvalidArgument:
    return InvalidArgument(f"This archive of code is not acceptable: {problem}.", field="code.archive")
