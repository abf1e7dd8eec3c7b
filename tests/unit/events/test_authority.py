"""NATS's signing keys: a damaged file is named, and stops nothing but what needs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.backing.embedded import Embedded
from penstock.errors import FailedPrecondition
from penstock.events.credentials import create_authority


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"account": "A"}', "7"])
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, damage: str) -> None:
    create_authority(tmp_path)
    file = tmp_path / "authority.json"
    file.write_text(damage)
    with pytest.raises(FailedPrecondition, match=str(file)):
        create_authority(tmp_path)
    assert file.read_text() == damage


async def test_a_platform_with_damaged_keys_is_stopped_all_the_same(home: Path) -> None:
    create_authority(home / "nats" / "authority")
    (home / "nats" / "authority" / "authority.json").write_text("{")
    platform = Embedded(home, 8420)
    assert platform.status() == []
    await platform.stop()


async def test_to_look_at_a_home_makes_no_keys(home: Path) -> None:
    platform = Embedded(home, 8420)
    platform.status()
    await platform.stop()
    assert os.listdir(home) == []
