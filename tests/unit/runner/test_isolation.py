"""Which folders a command may see, without being root for it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from penstock.errors import Unavailable
from penstock.runner.isolation import NO_BOUNDARY, Isolation, choose, closed_folders, reserved


def test_only_what_is_needed_shows_in_closed_folders(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "deep" / "work").mkdir(parents=True)
    (closed / "other").mkdir()
    for folder in (*tmp_path.parents[:0], tmp_path):
        folder.chmod(0o711)
    closed.chmod(0o700)
    wanted = [closed / "deep" / "work", closed / "other", closed / "other" / "below"]
    (closed / "other" / "below").mkdir()
    found = closed_folders(wanted)
    outermost = next(folder for folder in (*reversed(tmp_path.parents), tmp_path, closed) if folder in found)
    assert found[outermost] == [closed / "deep" / "work", closed / "other"]


def test_open_folders_are_left_alone() -> None:
    assert closed_folders([Path("/usr/bin"), Path("/etc")]) == {}


def test_without_root_the_result_says_that_there_is_no_boundary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with choose((tmp_path,), tmp_path / "locks") as chosen:
        assert chosen == Isolation()
        assert chosen.description == NO_BOUNDARY
        chosen.enter()
        chosen.give(tmp_path)


def test_a_reserved_user_is_nobody_else_s_until_it_is_given_back(tmp_path: Path) -> None:
    locks, users = tmp_path / "locks", range(61000, 61003)
    with reserved(users, locks) as one, reserved(users, locks) as two, reserved(users, locks) as three:
        assert {one, two, three} == set(users)
        with pytest.raises(Unavailable, match="All 3 users"), reserved(users, locks):
            pass
    with reserved(range(one, one + 1), locks) as again:
        assert again == one
    assert stat.S_IMODE(locks.stat().st_mode) == 0o600


def test_a_user_that_a_process_has_is_not_given(tmp_path: Path) -> None:
    with pytest.raises(Unavailable), reserved(range(os.getuid(), os.getuid() + 1), tmp_path / "locks"):
        pass


def test_nobody_can_foresee_which_user_it_will_be(tmp_path: Path) -> None:
    found = set()
    for _ in range(5):
        with reserved(range(61000, 65000), tmp_path / "locks") as user:
            found.add(user)
    assert len(found) > 1
