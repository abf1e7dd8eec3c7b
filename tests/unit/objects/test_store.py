"""The object store on a real disk: durable, content-addressed, checked on every read, atomic by name."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import DataCorrupt, InvalidArgument, NotFound, ResourceExhausted
from penstock.objects import ObjectStore, durable


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open((tmp_path / "objects").as_uri())


def file_of(objects: ObjectStore, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return objects.root / "sha256" / name[:2] / name


def test_bytes_come_back_under_their_sha256(objects: ObjectStore) -> None:
    ref = objects.put_bytes(b"water")
    assert ref.digest == "sha256:" + hashlib.sha256(b"water").hexdigest()
    assert ref.size == 5
    assert objects.get_bytes(ref.digest) == b"water"
    assert objects.exists(ref.digest)
    assert file_of(objects, ref.digest).is_file()


def test_a_file_and_its_bytes_have_one_reference(objects: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(3 << 20))
    assert objects.put_file(path) == objects.put_bytes(path.read_bytes())
    target = tmp_path / "new" / "copy"
    objects.fetch(objects.put_file(path).digest, target)
    assert target.read_bytes() == path.read_bytes()
    assert [p.name for p in target.parent.iterdir()] == ["copy"]


def test_damaged_bytes_are_never_handed_out(objects: ObjectStore, tmp_path: Path) -> None:
    ref = objects.put_bytes(b"water")
    file_of(objects, ref.digest).write_bytes(b"wader")
    with pytest.raises(DataCorrupt, match="damaged"):
        objects.get_bytes(ref.digest)
    with pytest.raises(DataCorrupt):
        objects.fetch(ref.digest, tmp_path / "out" / "copy")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_not_there_is_not_found(objects: ObjectStore, tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    assert not objects.exists(digest)
    with pytest.raises(NotFound):
        objects.get_bytes(digest)
    with pytest.raises(NotFound):
        objects.put_file(tmp_path / "nothing")
    assert objects.get_named("a/b") is None
    assert objects.list_named("a") == objects.list_named("") == []


@pytest.mark.parametrize(
    "digest", ["", "sha256:../../etc/passwd", "md5:" + "0" * 32, "sha256:" + "0" * 63, "sha256:" + "G" * 64]
)
def test_only_digests_are_digests(objects: ObjectStore, digest: str) -> None:
    with pytest.raises(InvalidArgument):
        objects.get_bytes(digest)


def test_named_objects_are_replaced_and_listed(objects: ObjectStore) -> None:
    objects.put_named("projects/p/runs/r/attempts/1/result.json", b"1")
    objects.put_named("projects/p/runs/r/attempts/1/result.json", b"2")
    objects.put_named("projects/q/x", b"3")
    assert objects.get_named("projects/p/runs/r/attempts/1/result.json") == b"2"
    assert objects.get_named("projects/p") is None
    assert objects.list_named("projects/p") == ["projects/p/runs/r/attempts/1/result.json"]
    with pytest.raises(InvalidArgument):
        objects.put_named("../escape", b"")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so_and_leaves_nothing(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    objects.root.mkdir()
    (objects.root / "scratch").mkdir()
    (objects.root / "named").mkdir()
    with pytest.raises(ResourceExhausted, match="free some space"):
        objects.put_named("a", b"1")
    assert objects.get_named("a") is None
    assert [p for p in objects.root.rglob("*") if p.is_file()] == []


def test_a_really_full_disk_is_told_as_such(objects: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted):
        durable.replace_file(tmp_path / "x", _into_full(), tmp_path / "scratch")


def _into_full() -> Iterator[bytes]:
    yield b"some"
    with open("/dev/full", "wb", buffering=0) as full:
        full.write(b"more")


def test_an_interrupted_write_leaves_the_old_object(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.put_named("a", b"old")

    def killed(source: str, target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        objects.put_named("a", b"new")
    assert objects.get_named("a") == b"old"


def test_every_change_passes_the_one_seam(
    objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(operation: object) -> None:
        raise OSError("injected")

    monkeypatch.setattr(durable, "write", refuse)
    (tmp_path / "f").write_bytes(b"x")
    for change in (
        lambda: objects.put_bytes(b"x"),
        lambda: objects.put_file(tmp_path / "f"),
        lambda: objects.put_named("a", b"x"),
    ):
        with pytest.raises(OSError, match="injected"):
            change()
    assert not objects.root.exists()


def test_storing_twice_writes_once(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = objects.put_bytes(b"x")
    monkeypatch.setattr(durable, "write", lambda operation: pytest.fail("a second write"))
    assert objects.put_bytes(b"x") == first


def test_a_torn_object_is_written_again(objects: ObjectStore) -> None:
    ref = objects.put_bytes(b"water")
    file_of(objects, ref.digest).write_bytes(b"wa")
    objects.put_bytes(b"water")
    assert objects.get_bytes(ref.digest) == b"water"


def test_leftovers_of_killed_writers_are_swept(objects: ObjectStore) -> None:
    objects.put_bytes(b"x")
    (objects.root / "scratch" / "1-abc").write_bytes(b"half")
    assert objects.sweep() == 0
    assert objects.sweep(older_than=-1) == 1
    assert list((objects.root / "scratch").iterdir()) == []


@pytest.mark.parametrize("url", ["s3://bucket", "objects", "file://host/x", "http://x/y", "file:relative"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="object store"):
        ObjectStore.open(url)


def test_the_bytes_and_their_folders_are_synced_before_the_reference(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_sync(descriptor: int) -> None:
        order.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    path = file_of(objects, objects.put_bytes(b"x").digest)
    renamed = order.index("rename")
    assert "/scratch/" in order[renamed - 1]
    assert order[renamed + 1 :] == [str(path.parent)]
    assert str(path.parent.parent) in order[:renamed]  # the new folder <ab> itself is durable
