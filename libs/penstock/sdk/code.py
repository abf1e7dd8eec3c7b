"""Where a run's code comes from: a git URL as it is, a folder as a content-addressed archive."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.errors import InvalidArgument

if TYPE_CHECKING:
    from penstock.sdk.client import Client

MAX_ARCHIVE = 12 * 1024 * 1024
SKIPPED = {".git", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".pytest_cache"}


def code_source(client: Client, text: str) -> pb.Code:
    """The code that `text` means: `https://…[#ref]` is git; anything else is a folder, which is uploaded."""
    url, _, ref = text.partition("#")
    if "://" in url or url.endswith(".git"):
        return pb.Code(git=pb.GitSource(url=url, ref=ref))
    archive = pack(Path(text))
    made = client.training.CreateCodeArchive(pb.CreateCodeArchiveRequest(parent=client.project, data=archive))
    return pb.Code(archive=made.digest)


def pack(folder: Path) -> bytes:
    """A gzipped tar of a folder's files, the same bytes for the same files; in a git tree without what git ignores."""
    if not folder.is_dir():
        raise InvalidArgument(f"There is no folder {folder}: --code takes a git URL or a folder.", field="code")
    files = _files(folder)
    if not files:
        raise InvalidArgument(f"There is no file in {folder}.", field="code")
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in files:
            info = tarfile.TarInfo(str(path.relative_to(folder)))
            info.size = path.stat().st_size
            info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as source:
                tar.addfile(info, source)
    data = buffer.getvalue()
    if len(data) > MAX_ARCHIVE:
        raise InvalidArgument(
            f"The folder packs to {len(data) >> 20} MiB, the most is {MAX_ARCHIVE >> 20}. Leave data out, or use git.",
            field="code",
        )
    return data


def _files(folder: Path) -> list[Path]:
    # Git lists nothing for a folder that it ignores as a whole: then all its files are meant.
    found = _listed_by_git(folder) or [p for p in folder.rglob("*") if not SKIPPED & set(p.relative_to(folder).parts)]
    return sorted(p for p in found if p.is_file() and not p.is_symlink())


def _listed_by_git(folder: Path) -> list[Path]:
    """What git knows or would add; nothing where there is no git, or no tree of it."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [folder / name.decode(errors="surrogateescape") for name in listed.split(b"\0") if name]
