"""Folders as objects: a manifest of files, stored by its own digest, so that one digest names a whole model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import DataCorrupt, InvalidArgument
from penstock.objects.paths import safe_join
from penstock.objects.store import ObjectRef, ObjectStore


@dataclass(frozen=True)
class TreeFile:
    """One file of a tree: `path` relative to its root (with `/`), and what it holds."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True)
class Tree:
    """The files of a folder, sorted by path. Folders without files and file modes are not kept."""

    files: tuple[TreeFile, ...]

    @property
    def size(self) -> int:
        """The sum of the files' sizes in bytes."""
        return sum(file.size for file in self.files)


def put_tree(objects: ObjectStore, folder: Path | str) -> ObjectRef:
    """Store a folder's regular files and their manifest; the reference is the manifest's.

    Raises InvalidArgument when the folder holds anything but regular files and folders.
    """
    root = Path(folder)
    files = []
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InvalidArgument(
                f"'{path}' is neither a regular file nor a folder: only those can be stored.", field="folder"
            )
        if path.is_file():
            ref = objects.put_file(path)
            files.append(TreeFile(path.relative_to(root).as_posix(), ref.digest, ref.size))
    return put_manifest(objects, files)


def put_manifest(objects: ObjectStore, files: Iterable[TreeFile]) -> ObjectRef:
    """Store the manifest of files that are stored already. The same files always give the same digest."""
    ordered = sorted(files, key=lambda file: file.path)
    body = {"files": [{"path": f.path, "digest": f.digest, "size": f.size} for f in ordered]}
    return objects.put_bytes(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())


def read_tree(objects: ObjectStore, digest: str) -> Tree:
    """The manifest under `digest`. Raises NotFound, DataCorrupt (also when the object is no manifest)."""
    try:
        body = json.loads(objects.get_bytes(digest))
        return Tree(tuple(TreeFile(str(f["path"]), str(f["digest"]), int(f["size"])) for f in body["files"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataCorrupt(f"The object {digest} is not a manifest of files.") from error


def fetch_tree(objects: ObjectStore, digest: str, folder: Path | str) -> Tree:
    """Write a tree's files into `folder`, their digests checked. Raises NotFound, DataCorrupt, InvalidArgument."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    tree = read_tree(objects, digest)
    for file in tree.files:
        objects.fetch(file.digest, safe_join(root, file.path))
    return tree
