"""The object store: content-addressed artifacts and named objects under one URL.

Layout of `file://`: `sha256/<ab>/<hex>` holds content, `named/<key>` named objects, `scratch/` what is being written.
Calls block; services make them in a thread.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from penstock.errors import DataCorrupt, InvalidArgument, NotFound
from penstock.objects import durable
from penstock.objects.paths import safe_join

CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ObjectRef:
    """What identifies stored content: `digest` ("sha256:<64 hex digits>") and its `size` in bytes."""

    digest: str
    size: int


def digest_of(content: bytes) -> str:
    """The digest under which `content` is stored."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class ObjectStore:
    """Durable, content-addressed bytes: a returned reference survives a power cut, and every read is checked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._scratch = root / "scratch"

    @classmethod
    def open(cls, url: str) -> ObjectStore:
        """Open `file:///folder` (made at the first write). Raises InvalidArgument for another kind of URL."""
        parts = urlsplit(url)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidArgument(
                f"'{url[:200]}' is not an object store: use file:///path/of/a/folder.", field="objects_url"
            )
        return cls(Path(unquote(parts.path)))

    def put_bytes(self, content: bytes) -> ObjectRef:
        """Store `content`; its reference is durable on return. Raises ResourceExhausted when the disk is full."""
        ref = ObjectRef(digest_of(content), len(content))
        self._put(ref, lambda: iter((content,)))
        return ref

    def put_file(self, path: Path | str) -> ObjectRef:
        """Store what a file holds now. Raises NotFound, ResourceExhausted."""
        try:
            with open(path, "rb") as file:
                return self.put_stream(file)
        except FileNotFoundError as error:
            raise NotFound(f"There is no file '{path}' to store.") from error

    def put_stream(self, file: BinaryIO) -> ObjectRef:
        """Store what an open, seekable binary file holds from its beginning."""
        digest, size = hashlib.sha256(), 0
        file.seek(0)
        for chunk in _chunks(file):
            digest.update(chunk)
            size += len(chunk)
        ref = ObjectRef("sha256:" + digest.hexdigest(), size)

        def again() -> Iterator[bytes]:
            file.seek(0)
            return _checked(_chunks(file), ref.digest, "The file changed while it was being stored; store it again.")

        self._put(ref, again)
        return ref

    def get_bytes(self, digest: str) -> bytes:
        """The content under `digest`. Raises NotFound, DataCorrupt."""
        return b"".join(self.read(digest))

    def read(self, digest: str) -> Iterator[bytes]:
        """The content in chunks of at most 1 MiB. DataCorrupt comes after the last: use nothing before the end."""
        try:
            with open(self._path(digest), "rb") as file:
                yield from _checked(_chunks(file), digest, f"The stored bytes of {digest} are damaged: restore them.")
        except FileNotFoundError as error:
            raise NotFound(f"There is no object {digest}.") from error

    def fetch(self, digest: str, path: Path | str) -> None:
        """Copy the content to `path` (made with its folders); nothing appears there unless the digest was right."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{digest[-16:]}.{os.getpid()}.partial")
        try:
            with open(partial, "wb") as file:
                for chunk in self.read(digest):
                    file.write(chunk)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def exists(self, digest: str) -> bool:
        """Whether content is stored under `digest` (its bytes are not checked)."""
        return self._path(digest).is_file()

    def put_named(self, key: str, content: bytes) -> None:
        """Make `key` ("a/b/c.json") hold `content`: readers see the old or the new bytes whole. Durable on return."""
        path = safe_join(self.root / "named", key, field="key")
        durable.write(lambda: durable.replace_file(path, (content,), self._scratch))

    def get_named(self, key: str) -> bytes | None:
        """What `key` holds, or None."""
        try:
            return safe_join(self.root / "named", key, field="key").read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def list_named(self, prefix: str) -> list[str]:
        """The keys below the folder `prefix` ("" for all), sorted."""
        base = Path(os.path.realpath(self.root / "named"))
        folder = safe_join(base, prefix.rstrip("/"), field="prefix") if prefix else base
        return sorted(p.relative_to(base).as_posix() for p in folder.rglob("*") if p.is_file())

    def sweep(self, older_than: float = 86400.0) -> int:
        """Remove what killed writers left half-written more than `older_than` seconds ago; returns how many."""
        removed = 0
        for path in self._scratch.glob("*"):
            with suppress(FileNotFoundError):  # its writer, or another sweep, was faster
                if path.stat().st_mtime < time.time() - older_than:
                    path.unlink()
                    removed += 1
        return removed

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidArgument(f"'{digest[:100]}' is not a digest: use sha256:<64 hex digits>.", field="digest")
        name = digest.removeprefix("sha256:")
        return self.root / "sha256" / name[:2] / name

    def _put(self, ref: ObjectRef, chunks: Callable[[], Iterator[bytes]]) -> None:
        path = self._path(ref.digest)
        if path.is_file() and path.stat().st_size == ref.size:
            # Another writer may have renamed it into place and not yet made that durable.
            durable.sync_folder(path.parent)
            return
        durable.write(lambda: durable.replace_file(path, chunks(), self._scratch))


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _checked(chunks: Iterator[bytes], digest: str, problem: str) -> Iterator[bytes]:
    seen = hashlib.sha256()
    for chunk in chunks:
        seen.update(chunk)
        yield chunk
    if "sha256:" + seen.hexdigest() != digest:
        raise DataCorrupt(problem)
