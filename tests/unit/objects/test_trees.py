"""Folders stored under one digest."""

import json
from pathlib import Path

import pytest

from penstock.errors import DataCorrupt, InvalidArgument, NotFound
from penstock.objects import ObjectStore, fetch_tree, put_tree, read_tree


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def make(folder: Path) -> Path:
    (folder / "b").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder / "b" / "ü.json").write_text("{}")
    (folder / "empty").write_bytes(b"")
    return folder


def test_a_folder_comes_back_from_its_digest(objects: ObjectStore, tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    ref = put_tree(objects, source)
    tree = fetch_tree(objects, ref.digest, tmp_path / "copy")
    assert [f.path for f in tree.files] == ["b/ü.json", "empty", "model.onnx"]
    assert tree.size == 6
    for file in tree.files:
        assert (tmp_path / "copy" / file.path).read_bytes() == (source / file.path).read_bytes()


def test_the_digest_depends_on_paths_and_bytes_only(objects: ObjectStore, tmp_path: Path) -> None:
    first = put_tree(objects, make(tmp_path / "one"))
    assert put_tree(objects, make(tmp_path / "two")) == first
    (tmp_path / "two" / "empty").write_bytes(b"1")
    assert put_tree(objects, tmp_path / "two") != first


def test_links_are_not_stored(objects: ObjectStore, tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    (source / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidArgument, match="neither a regular file"):
        put_tree(objects, source)


def test_a_manifest_cannot_lead_out_of_the_folder(objects: ObjectStore, tmp_path: Path) -> None:
    ref = objects.put_bytes(b"x")
    manifest = json.dumps({"files": [{"path": "../evil", "digest": ref.digest, "size": 1}]}).encode()
    with pytest.raises(InvalidArgument):
        fetch_tree(objects, objects.put_bytes(manifest).digest, tmp_path / "copy")
    assert not (tmp_path / "evil").exists()


def test_what_is_no_manifest_is_told_as_such(objects: ObjectStore) -> None:
    for body in (b"x", b"[]", b'{"files": [1]}'):
        with pytest.raises(DataCorrupt, match="manifest"):
            read_tree(objects, objects.put_bytes(body).digest)
    with pytest.raises(NotFound):
        read_tree(objects, "sha256:" + "0" * 64)
