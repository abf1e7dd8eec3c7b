"""Archives of code from outside: regular files and folders only, with caps."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import InvalidArgument
from penstock.runner import archive
from penstock.runner.archive import extract


def pack(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                info.mode = 0o4755 if member[0].endswith(".sh") else 0o600
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_files_and_folders_come_out(tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    packed = pack(
        tmp_path / "a.tar", special("./", tarfile.DIRTYPE), special("empty/", tarfile.DIRTYPE),
        ("./src/train.py", b"print(1)"), ("run.sh", b"#!/bin/sh"), mode=mode,
    )  # fmt: skip
    extract(packed, folder)
    assert (folder / "src" / "train.py").read_bytes() == b"print(1)"
    assert (folder / "empty").is_dir()
    assert os.stat(folder / "run.sh").st_mode & 0o7777 == 0o755
    assert os.stat(folder / "src" / "train.py").st_mode & 0o7777 == 0o644


@pytest.mark.parametrize(
    "member",
    [special("l", tarfile.SYMTYPE, "/etc/passwd"), special("l", tarfile.LNKTYPE, "../x"), special("d", tarfile.CHRTYPE),
     special("f", tarfile.FIFOTYPE), special("b", tarfile.BLKTYPE)],
)  # fmt: skip
def test_anything_else_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(InvalidArgument, match="neither a regular file nor a folder"):
        extract(pack(tmp_path / "a.tar", member), tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "a/./b", "a\\b"])
def test_no_path_leads_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidArgument):
        extract(pack(tmp_path / "a.tar", (name, b"x")), tmp_path / "out")
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []
    assert not (tmp_path / "evil").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(archive, "RATIO_FLOOR", 1000)
    with pytest.raises(InvalidArgument, match="unpacks to more than"):
        extract(pack(tmp_path / "a.tar", ("zeros", b"\0" * (4 << 20))), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    with pytest.raises(InvalidArgument, match="more than 3 entries"):
        extract(pack(tmp_path / "a.tar", *((f"f{n}", b"") for n in range(4))), tmp_path / "out")


@pytest.mark.parametrize("twice", [("f", "f"), ("f", "f/g"), ("f/g", "f")])
def test_a_name_twice_is_refused(tmp_path: Path, twice: tuple[str, str]) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidArgument):
        extract(pack(tmp_path / "a.tar", (twice[0], b"1"), (twice[1], b"2")), tmp_path / "out")


@given(st.binary(max_size=300), st.integers(0, 200))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_archives_are_refused_and_write_nothing_outside(tmp_path: Path, noise: bytes, at: int) -> None:
    whole = pack(tmp_path / "whole.tar", ("a/b", b"x" * 100), ("c", os.urandom(300))).read_bytes()
    (tmp_path / "damaged.tar").write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    folder = tmp_path / os.urandom(6).hex()
    folder.mkdir()
    with contextlib.suppress(InvalidArgument):
        extract(tmp_path / "damaged.tar", folder)
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {"whole.tar", "damaged.tar"}
