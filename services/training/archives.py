"""Code archives: what a gzipped tar may hold before it is kept for jobs to unpack."""

from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path

from penstock.errors import InvalidArgument, ResourceExhausted
from penstock.objects import ObjectStore, safe_join
from penstock.runner.archive import MAX_BYTES as MAX_UNPACKED
from penstock.runner.archive import MAX_FILES, MAX_RATIO, RATIO_FLOOR

MAX_BYTES = 12 << 20


def _limit(data: bytes) -> int:
    return min(MAX_UNPACKED, max(RATIO_FLOOR, MAX_RATIO * len(data)))


def _too_large(limit: int) -> ResourceExhausted:
    text = f"The code archive unfolds to more than {limit >> 20} MiB: leave data and results out of it."
    return ResourceExhausted(text, field="data")


class _Metered(io.RawIOBase):
    """Unpacks gzip, and refuses to go on beyond the caps: a bomb is met while it unfolds, not after."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self._inflate = zlib.decompressobj(wbits=31)
        self._limit = _limit(data)
        self._out = 0
        self._ready = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while (size < 0 or len(self._ready) < size) and not self._inflate.eof:
            tail = self._inflate.unconsumed_tail
            piece = self._inflate.decompress(tail or self._data.read(1 << 16), 1 << 18)
            if not piece and not tail and not self._inflate.eof and self._data.tell() == len(self._data.getbuffer()):
                raise EOFError("the archive ends early")
            self._out += len(piece)
            if self._out > self._limit:
                raise _too_large(self._limit)
            self._ready += piece
        end = len(self._ready) if size < 0 else size
        found, self._ready = self._ready[:end], self._ready[end:]
        return found


def keep_archive(objects: ObjectStore, project: str, data: bytes) -> tuple[str, int]:
    """Check an archive and store it for a project: its digest and size.

    Raises InvalidArgument for what is no gzipped tar of regular files and directories with paths inside it, and
    ResourceExhausted beyond 12 MiB, or what the runner would unpack.
    """
    if not data:
        raise InvalidArgument("The code archive is empty: send a gzipped tar.", field="data")
    if len(data) > MAX_BYTES:
        raise ResourceExhausted(
            f"The code archive has {len(data)} bytes; at most {MAX_BYTES} are taken. Leave data out, or use Git.",
            field="data",
        )
    try:
        _check(data)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise InvalidArgument(f"The code archive is no gzipped tar ({error}).", field="data") from error
    ref = objects.put_bytes(data)
    objects.put_named(_mark(project, ref.digest), b"")
    return ref.digest, ref.size


def has_archive(objects: ObjectStore, project: str, digest: str) -> bool:
    """Whether a project was sent this archive: content is stored once for all, but is only for whoever had it."""
    return objects.get_named(_mark(project, digest)) is not None and objects.exists(digest)


def _mark(project: str, digest: str) -> str:
    return f"projects/{project}/archives/{digest.removeprefix('sha256:')}"


def _check(data: bytes) -> None:
    count = total = 0
    limit = _limit(data)
    with tarfile.open(fileobj=_Metered(data), mode="r|") as archive:
        for member in archive:
            count += 1
            total += member.size
            if count > MAX_FILES:
                raise ResourceExhausted(f"The code archive has more than {MAX_FILES} members.", field="data")
            if total > limit:  # said, not unfolded: tarfile would go on skipping it after the end of the data
                raise _too_large(limit)
            if not (member.isreg() or member.isdir()):
                raise InvalidArgument(
                    f"{member.name[:120]!a} in the code archive is neither a regular file nor a directory (links are "
                    "not taken): put the file itself there.",
                    field="data",
                )
            name = member.name.removeprefix("./").rstrip("/")
            if name not in ("", "."):
                safe_join(Path("/archive"), name, field="data")
    if not count:
        raise InvalidArgument("The code archive has no members.", field="data")
