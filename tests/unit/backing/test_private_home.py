"""A home is closed to other users, and no folder of somebody else's is closed by accident."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from penstock.backing.embedded import keep_private, prepare_home
from penstock.errors import FailedPrecondition


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("inside", [None, "keys/0001.pem"])
def test_an_open_home_is_closed(tmp_path: Path, inside: str | None) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    if inside is not None:
        (home / inside).parent.mkdir()
        (home / inside).touch()
    keep_private(home)
    assert mode(home) == 0o700


@pytest.mark.parametrize("inside", ["letters.txt", "run/supervisor.json", "keys/readme"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / "documents"
    (folder / inside).parent.mkdir(parents=True)
    (folder / inside).touch()
    folder.chmod(0o755)
    with pytest.raises(FailedPrecondition, match="--home"):
        keep_private(folder)
    assert mode(folder) == 0o755


def test_a_closed_one_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").touch()
    tmp_path.chmod(0o700)
    keep_private(tmp_path)
    assert mode(tmp_path) == 0o700


def test_a_home_that_cannot_be_written_to_is_named() -> None:
    with pytest.raises(FailedPrecondition, match="/sys/kernel/penstock must be a folder that you can write to"):
        prepare_home(Path("/sys/kernel/penstock"))


def test_a_prepared_home_is_empty(tmp_path: Path) -> None:
    prepare_home(tmp_path / "home")
    assert mode(tmp_path / "home") == 0o700
    assert list((tmp_path / "home").iterdir()) == []
