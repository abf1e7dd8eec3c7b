"""Small files between processes: never seen half written."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from penstock.runtime.files import replace_text


def test_whoever_reads_meanwhile_sees_the_old_text_or_the_new_one(tmp_path: Path) -> None:
    path, over = tmp_path / "ready", threading.Event()
    texts = {"a" * 100_000, "b" * 100_000}
    replace_text(path, min(texts))
    seen: set[str] = set()

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(200):
            for text in texts:
                replace_text(path, text)
    finally:
        over.set()
        reader.join()
    assert seen == texts


def test_it_is_the_owners_alone_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o644)
    replace_text(path, "new\n")
    assert path.read_text() == "new\n" and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_text_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "url"
    replace_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        replace_text(path, "\ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
