"""Damaged files of the edge can be made anew: none of them stops a start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.edge import Edge
from penstock.edge.model import Member
from penstock.errors import FailedPrecondition
from penstock.rpc.keys import Keys

MEMBERS = [Member(1, 21001, 21002, 100)]


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    made = Edge(tmp_path / "envoy")
    made.set_keys_and_denylist(Keys.generate().jwks(), {"t1"})
    for endpoint in ("teas", "wines"):
        made.set_endpoint("default", endpoint, MEMBERS, generation=4)
    return made


@pytest.mark.parametrize("damage", ["", "{", "\0"])
def test_damaged_keys_are_as_good_as_none(edge: Edge, damage: str) -> None:
    edge.folder.keys.write_text(damage)
    with pytest.raises(FailedPrecondition, match="no keys yet"):
        edge.keys()
    jwks = Keys.generate().jwks()
    edge.write_base(
        port=21003, admin_port=21004, jwks=jwks, services={"project": "127.0.0.1:21005"}, descriptor_set=b""
    )
    assert edge.keys().jwks == jwks


@pytest.mark.parametrize("damage", ["", "{", "\0"])
def test_a_damaged_member_is_written_again_by_its_owner(edge: Edge, damage: str) -> None:
    file = next(file for file in edge.folder.members.iterdir() if "teas" in file.name)
    file.write_text(damage)
    assert edge.written_generation("default", "teas") == 0
    assert edge.written_generation("default", "wines") == 4
    assert ("default", "wines") in edge.serving()
    edge.set_endpoint("default", "teas", MEMBERS, generation=4)
    assert edge.written_generation("default", "teas") == 4
    json.loads(file.read_text())


def test_damaged_clusters_are_made_anew_from_the_members(edge: Edge) -> None:
    before = edge.folder.clusters.read_text()
    edge.folder.clusters.write_text("{")
    edge.set_endpoint("default", "teas", MEMBERS, generation=5)
    assert json.loads(edge.folder.clusters.read_text()) == json.loads(before)
