"""Making Triton's environment: whole or not at all, by one at a time, from locked packages only."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from penstock.backing import triton_environment
from penstock.backing.triton_environment import LOCK_FILE, build_once, environment_folder, find_environment
from penstock.errors import FailedPrecondition, ResourceExhausted, Unavailable


def test_what_fails_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    def fail(draft: Path) -> None:
        draft.mkdir()
        (draft / "half").write_text("")
        raise Unavailable("no network")

    with pytest.raises(Unavailable):
        build_once(tmp_path / "environment", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".environment.lock"]


def test_what_a_killed_builder_left_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / ".environment.new" / "half").mkdir(parents=True)
    build_once(tmp_path / "environment", lambda draft: draft.mkdir())
    assert list((tmp_path / "environment").iterdir()) == []


def test_of_many_at_once_one_builds_and_the_others_wait_for_it(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(draft: Path) -> None:
        draft.mkdir()
        built.append(draft)
        threading.Event().wait(0.2)

    def call() -> None:
        build_once(tmp_path / "environment", build)
        assert (tmp_path / "environment").is_dir()

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_a_disk_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    def full(draft: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceExhausted, match=r"No space left on device.*Free some space"):
        build_once(tmp_path / "environment", full)


def test_a_package_with_another_digest_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("packaging==26.3 --hash=sha256:" + "0" * 64)
    monkeypatch.setattr(triton_environment, "LOCK_FILE", lock)
    seen: list[tuple[str, float]] = []
    with pytest.raises(Unavailable, match=r"run `penstock setup` again"):
        triton_environment.setup_environment(tmp_path / "data", lambda message, done: seen.append((message, done)))
    assert seen[0] == ("Making an environment for Triton", 0.0)
    assert find_environment(tmp_path / "data") is None
    assert [path.suffix for path in (tmp_path / "data").iterdir()] == [".lock"]


def test_a_folder_from_which_triton_cannot_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="XDG_DATA_HOME"):
        triton_environment.setup_environment(tmp_path / "my data")
    assert list(tmp_path.iterdir()) == []


def test_the_lock_pins_every_package_by_digest_and_names_no_registry() -> None:
    text = LOCK_FILE.read_text()
    packages = re.findall(r"^[a-z-]+==\S+ \\$(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?$)+", text, re.MULTILINE)
    assert len(packages) == len(re.findall(r"==", text)) == 6
    assert "://" not in text


def test_another_lock_means_another_environment(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("packaging==26.3")
    assert environment_folder(tmp_path).parent == tmp_path
    assert environment_folder(tmp_path) != environment_folder(tmp_path, tmp_path / "lock.txt")
