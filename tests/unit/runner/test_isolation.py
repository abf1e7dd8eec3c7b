"""Which folders a command may see, without being root for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.runner.isolation import NO_BOUNDARY, Isolation, choose, closed_folders


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
    chosen = choose((tmp_path,), "marker")
    assert chosen == Isolation()
    assert chosen.description == NO_BOUNDARY
    chosen.enter()
    chosen.give(tmp_path)
