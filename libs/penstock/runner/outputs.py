"""What a command left in PENSTOCK_OUTPUT_DIR: checked, stored, and named by digest."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from penstock.algorithms.model_format import CARD_FILE, MODEL_FILE, ModelCard
from penstock.errors import InvalidArgument
from penstock.jobs.result import Output
from penstock.objects import ObjectStore, TreeFile
from penstock.objects.trees import put_manifest

MODEL = "model/"
MAX_FILES = 10_000


def store_outputs(objects: ObjectStore, folder: Path) -> tuple[Output, ...]:
    """Store every file. Raises InvalidArgument for anything but regular files and folders."""
    outputs: list[Output] = []
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidArgument("The command removed or replaced PENSTOCK_OUTPUT_DIR itself.", field="outputs")
    # By descriptor, and never through a link: what runs as the platform must not be made to read for somebody else.
    for root, folders, files, descriptor in os.fwalk(folder, onerror=_raise, follow_symlinks=False):
        folders.sort()
        for name in sorted({*files, *(f for f in folders if _is_link(f, descriptor))}):
            path = os.path.relpath(os.path.join(root, name), folder)
            if not stat.S_ISREG(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise InvalidArgument(
                    f"The output '{path}' is not a regular file: write files and folders only.", field="outputs"
                )
            if len(outputs) >= MAX_FILES:
                raise InvalidArgument(f"More than {MAX_FILES} output files: put them into an archive.", field="outputs")
            outputs.append(_store(objects, name, descriptor, path))
    return tuple(sorted(outputs, key=lambda output: output.path))


def _store(objects: ObjectStore, name: str, descriptor: int, path: str) -> Output:
    path.encode()  # a name that is no text has no place in JSON: UnicodeEncodeError is a ValueError
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
    with os.fdopen(file, "rb") as opened:
        ref = objects.put_stream(opened)
    return Output(path, ref.digest, ref.size)


def _raise(error: OSError) -> None:
    raise error


def _is_link(name: str, descriptor: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)


def store_model(objects: ObjectStore, outputs: tuple[Output, ...]) -> str:
    """The digest of the tree of `model/` among stored outputs; "" if there is none."""
    files = [TreeFile(o.path.removeprefix(MODEL), o.digest, o.size) for o in outputs if o.path.startswith(MODEL)]
    return put_manifest(objects, files).digest if files else ""


def check_model(folder: Path) -> None:
    """See that `folder`/model is what serving needs, as far as can be seen without running it; else InvalidArgument."""
    model = folder / "model"
    missing = [f"model/{name}" for name in (MODEL_FILE, CARD_FILE) if not (model / name).is_file()]
    if missing:
        raise InvalidArgument(
            f"The command ended well but wrote no {' and no '.join(missing)} in PENSTOCK_OUTPUT_DIR. "
            "penstock.run.save_model writes both.",
            field="outputs.model",
        )
    try:
        names = (path.relative_to(model) for path in model.rglob("*") if not path.is_dir())
        ModelCard.load(model).check_names(name.as_posix() for name in names)
    except InvalidArgument as error:
        raise InvalidArgument(
            f"The model that the command wrote cannot be used: {error}", field="outputs.model"
        ) from error
