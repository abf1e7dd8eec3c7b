"""What is written without any Envoy: the files, who owns which, and what is refused."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from penstock.edge import Edge, Member, Tls, descriptors, files, watches
from penstock.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from penstock.rpc.keys import Keys

JWKS = Keys.generate().jwks()
ONE = Member(1, 1001, 1002)


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path / "envoy")


def write_base(edge: Edge, **changes: Any) -> None:
    given: dict[str, Any] = {
        "port": 8420,
        "admin_port": 8421,
        "jwks": JWKS,
        "services": {"project": "127.0.0.1:9001", "dataset": "dataset.penstock:9001"},
        "descriptor_set": b"",
    }
    edge.write_base(**{**given, **changes})


def contents(edge: Edge) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in edge.folder.root.rglob("*") if p.is_file()}


def clusters(edge: Edge) -> dict[str, Any]:
    return {c["name"]: c for c in json.loads(edge.folder.clusters.read_bytes())["resources"]}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_a_public_port_without_a_certificate_is_refused(edge: Edge, host: str) -> None:
    with pytest.raises(FailedPrecondition, match="certificate"):
        write_base(edge, host=host)
    assert not edge.folder.root.exists()


def test_a_public_port_with_a_certificate_is_accepted(edge: Edge, tmp_path: Path) -> None:
    write_base(edge, host="0.0.0.0", tls=Tls(tmp_path / "crt", tmp_path / "key"))
    assert "DownstreamTlsContext" in edge.folder.listeners.read_text()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"port": 0}, "port"),
        ({"admin_port": 70000}, "admin_port"),
        ({"services": {"project": "nowhere"}}, "services.project"),
        ({"reflection": "lineage"}, "reflection"),
        ({"jwks": "{}"}, "jwks"),
        ({"jwks": '{"keys": []}'}, "jwks"),
        ({"jwks": '{"keys": [{"kty": "EC", "d": "secret"}]}'}, "jwks"),
        ({"descriptor_set": b"\xff\xff"}, "descriptor_set"),
        ({"denied": ['x"] = nil --']}, "denied"),
    ],
)
def test_what_envoy_would_refuse_is_named(edge: Edge, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        write_base(edge, **changes)
    assert caught.value.violations[0].field == field
    assert not edge.folder.root.exists()


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda edge: edge.set_endpoint("alpha", "clf", []), "members"),
        (lambda edge: edge.set_endpoint("alpha", "clf", [ONE, ONE]), "members"),
        (lambda edge: edge.set_endpoint("alpha", "a/b", [ONE]), "endpoint"),
        (lambda edge: edge.set_endpoint("../x", "clf", [ONE]), "project"),
        (lambda edge: Member(0, 1, 1), "members"),
        (lambda edge: Member(1, 1, 1, weight=-1), "members"),
        (lambda edge: Member(1, 1, 1, host="localhost"), "members.host"),
        (lambda edge: Member(1, 1, 99999), "members.grpc_port"),
    ],
)
def test_a_bad_endpoint_is_named_and_changes_nothing(edge: Edge, make: Any, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make(edge)
    assert caught.value.violations[0].field == field
    assert not edge.folder.root.exists()


def test_owners_do_not_touch_each_others_files(edge: Edge) -> None:
    write_base(edge)
    base = contents(edge)
    edge.set_endpoint("alpha", "clf", [ONE])
    edge.set_revision_cluster("alpha", "clf", ONE)
    served = contents(edge)
    assert {name for name in base if base[name] != served[name]} == {"cds.json"}
    edge.set_keys_and_denylist(JWKS, {"t1"})
    keyed = contents(edge)
    assert {name for name in keyed if served[name] != keyed[name]} == {"keys.json", "identity.json"}
    write_base(edge)
    assert contents(edge) == keyed


def test_the_denylist_outlives_a_start_of_the_platform(edge: Edge) -> None:
    write_base(edge)
    edge.set_keys_and_denylist(JWKS, {"t1"})
    write_base(edge)
    assert edge.keys().denied == {"t1"}
    assert (
        '["t1"]=true'
        in json.loads(edge.folder.identity.read_bytes())["resources"][0]["typed_config"]["default_source_code"][
            "inline_string"
        ]
    )
    write_base(edge, denied=())
    assert edge.keys().denied == frozenset()


def test_descriptors_that_are_not_in_use_go_away(edge: Edge) -> None:
    write_base(edge)
    write_base(edge, descriptor_set=descriptors.kserve().SerializeToString())
    assert len(list(edge.folder.root.glob("*.pb"))) == 2


def test_nobody_else_can_read_the_folder(edge: Edge) -> None:
    write_base(edge)
    assert stat.S_IMODE(edge.folder.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(edge.folder.keys.stat().st_mode) == 0o600


def test_the_folder_is_the_state(edge: Edge) -> None:
    assert edge.set_endpoint("alpha", "clf", [ONE]) == 1
    assert edge.set_endpoint("alpha", "clf", [ONE, Member(2, 1003, 1004, 0)]) == 2
    edge.set_revision_cluster("alpha", "clf", Member(2, 1003, 1004))
    edge.set_endpoint("beta", "clf", [ONE], generation=9)
    again = Edge(edge.folder.root)
    assert again.endpoints() == {("alpha", "clf"), ("beta", "clf")}
    assert again.written_generation("alpha", "clf") == 2
    assert again.written_generation("beta", "clf") == 9
    assert again.revision_clusters("alpha", "clf") == {2}
    assert again.addresses("alpha", "clf", 2) == {("127.0.0.1", 1003), ("127.0.0.1", 1004)}
    again.remove_revision_cluster("alpha", "clf", 2)
    again.remove_endpoint("beta", "clf")
    assert set(clusters(edge)) == {"endpoint/alpha/clf/grpc", "endpoint/alpha/clf/http"}


def test_an_endpoint_whose_name_begins_like_anothers_stays(edge: Edge) -> None:
    for name in ("a", "a-b", "ab"):
        edge.set_endpoint("alpha", name, [ONE])
    edge.remove_endpoint("alpha", "a")
    assert edge.endpoints() == {("alpha", "a-b"), ("alpha", "ab")}


def test_services_are_found_by_address_or_by_name(edge: Edge) -> None:
    write_base(edge)
    found = clusters(edge)
    assert found["service/project"]["type"] == "STATIC"
    assert found["service/dataset"]["type"] == "STRICT_DNS"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.replace(tmp_path / "x", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace(tmp_path / "x", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"old"}


def test_error_details_are_in_the_descriptor_set() -> None:
    names = {file.name for file in descriptors.complete(b"").file}
    assert {"google/rpc/status.proto", "google/rpc/error_details.proto", "google/protobuf/any.proto"} <= names
    twice = descriptors.complete(descriptors.complete(b"").SerializeToString())
    assert len({file.name for file in twice.file}) == len(twice.file)
    assert FileDescriptorSet.FromString(descriptors.kserve().SerializeToString()).file[0].package == "inference"


def test_more_endpoints_than_envoy_can_watch_are_refused(
    edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.set_endpoint("alpha", "first", [ONE])
    limit = tmp_path / "limit"
    limit.write_text("10")
    monkeypatch.setattr(watches, "_LIMIT", limit)
    with pytest.raises(ResourceExhausted, match="inotify"):
        edge.set_endpoint("alpha", "second", [ONE])
    assert edge.endpoints() == {("alpha", "first")}
    edge.set_endpoint("alpha", "first", [ONE])
    edge.set_revision_cluster("alpha", "first", ONE)


def test_the_ports_that_take_requests_are_those_of_members_with_a_weight(edge: Edge) -> None:
    assert edge.serving() == {}
    edge.set_endpoint("alpha", "clf", [ONE, Member(2, 2001, 2002, weight=0)])
    edge.set_endpoint("beta", "clf", [Member(1, 3001, 3002)])
    edge.set_revision_cluster("alpha", "clf", Member(3, 4001, 4002))
    edge.set_endpoint("beta", "suspended", [Member(1, 5001, 5002, weight=0)])
    assert edge.serving() == {
        ("alpha", "clf"): {1001},
        ("beta", "clf"): {3001},
        ("beta", "suspended"): frozenset(),
    }
