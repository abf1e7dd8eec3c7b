"""The key that seals secrets: one, whole, and for its owner only."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from penstock.errors import DataCorrupt, FailedPrecondition
from services.project.vault import Vault


def test_two_processes_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    first, second = Vault(folder / "secrets.key"), Vault(folder / "secrets.key")
    assert second.open(first.seal(b"x")) == b"x"
    assert [path.name for path in folder.iterdir()] == ["secrets.key"]
    assert stat.S_IMODE((folder / "secrets.key").stat().st_mode) == 0o600


def test_what_another_key_sealed_is_not_opened(tmp_path: Path) -> None:
    sealed = Vault(tmp_path / "a").seal(b"x")
    with pytest.raises(DataCorrupt, match="restore the key"):
        Vault(tmp_path / "b").open(sealed)


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 44])
def test_a_damaged_key_is_named(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "secrets.key"
    Vault(file)
    file.write_bytes(damage)
    with pytest.raises(FailedPrecondition, match=str(file)):
        Vault(file)
    assert file.read_bytes() == damage
