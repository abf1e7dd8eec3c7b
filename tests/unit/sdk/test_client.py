"""The client without a platform: its names, its addresses, what it remembers, downloads that break."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock.sdk
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb
from penstock.errors import FailedPrecondition, InvalidArgument, Unavailable
from penstock.sdk import Client, following, interceptors
from penstock.sdk.addresses import split_url
from penstock.sdk.datasets import save_stream
from penstock.sdk.following import follow, wait
from penstock.sdk.interceptors import Session
from penstock.sdk.references import versioned


@pytest.mark.parametrize("url", ["127.0.0.1:8420", "ftp://x", "http://", "http://[::1", "http://x:y", "http://ü"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Client(url=url, token="t")
    assert caught.value.violations[0].field == "url"


def test_the_address_of_a_url_has_a_port_and_brackets_where_they_belong() -> None:
    assert split_url("http://[::1]:8420") == ("http", "[::1]:8420")
    assert split_url("https://penstock.example") == ("https", "penstock.example:443")


def test_a_name_is_made_of_ids_or_of_a_full_name() -> None:
    with Client(url="http://127.0.0.1:1", token="t", project="vision") as client:
        name = "projects/vision/runs/r1"
        assert client.name("run", "r1") == client.name("run", name) == name
        version = "projects/vision/models/m/versions/3"
        assert client.name("model_version", "projects/vision/models/m", 3) == version
        assert client.name("record", "d", "projects/a/b") == "projects/vision/datasets/d/records/projects%2Fa%2Fb"
        assert versioned(version, "model") == ("projects/vision/models/m", 3)
        wrong = ["projects/vision/studies/s", "projects/other/runs/r1", "projects/vision", "projects/vision/runs/r/x/y"]
        for text in wrong:
            with pytest.raises(InvalidArgument):
                client.name("run", text)


def test_a_project_must_be_an_id() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Client(url="http://127.0.0.1:1", token="t", project="Not An Id")
    assert caught.value.violations[0].field == "project"


def test_nothing_there_is_said_to_be_unreachable() -> None:
    with Client(url="http://127.0.0.1:1", token="t", project="vision", patience=0) as client:
        assert client.project == "projects/vision"
        with pytest.raises(Unavailable, match="penstock status"):
            client.pipelines.ListPipelines(pb.ListPipelinesRequest(parent=client.project))


def test_the_last_writes_are_the_newest_of_the_last_hundred_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptors, "REMEMBERED", 3)
    session = Session("t")
    for name, sequence in (("a", 1), ("b", 1), ("a", 5), ("a", 2), ("c", 1), ("d", 1), ("e", 0)):
        session._remember(pb.Pipeline(name=name, sequence=sequence))
    assert session.last_writes == {"a": 5, "c": 1, "d": 1}


def test_other_names_of_the_package_are_not_there() -> None:
    with pytest.raises(AttributeError):
        penstock.sdk.Nothing  # noqa: B018


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_download_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "part.parquet"
    save_stream(target, [b"ab", b"c"], digest(b"abc"))
    assert target.read_bytes() == b"abc"

    def breaks() -> Iterator[bytes]:
        yield b"x"
        raise Unavailable("gone")

    with pytest.raises(Unavailable):
        save_stream(target, breaks(), digest(b"abc"))
    with pytest.raises(FailedPrecondition):
        save_stream(target, [b"abx"], digest(b"abc"))
    assert target.read_bytes() == b"abc"
    assert [path.name for path in tmp_path.iterdir()] == ["part.parquet"]


def test_following_goes_on_after_a_break_and_gives_up_after_its_patience() -> None:
    opened: list[int] = []

    def stream() -> Iterator[Any]:
        opened.append(1)
        yield len(opened)
        if len(opened) < 3:
            raise Unavailable("restarting")

    assert list(follow(stream)) == [1, 2, 3]
    assert wait(lambda: iter([1, 2])) == 2
    with pytest.raises(Unavailable):
        list(follow(lambda: iter_raising(), patience=0))


def test_patience_begins_with_the_break_however_long_nothing_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that trains for hours sends nothing meanwhile; the platform then restarts for some seconds."""
    clock = Clock(monkeypatch)
    opened: list[int] = []

    def stream() -> Iterator[int]:
        opened.append(1)
        if len(opened) in (1, 5):
            yield len(opened)
            clock.now += 3600
        if len(opened) == 10:
            return
        clock.now += 3
        raise Unavailable("restarting")

    assert list(follow(stream)) == [1, 5]
    opened.clear()
    with pytest.raises(Unavailable):
        list(follow(lambda: iter_raising(opened), is_there=lambda: False))
    assert 2 < len(opened) < 10


def test_a_quiet_stream_that_breaks_again_was_open_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    opened: list[int] = []

    def stream() -> Iterator[int]:
        opened.append(1)
        if len(opened) == 4:
            return
        clock.now += 3600
        raise Unavailable("restarting")
        yield

    assert list(follow(stream)) == []


class Clock:
    """The time of `following`, which passes only when told, or slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(following, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def iter_raising(opened: list[int] | None = None) -> Iterator[Any]:
    if opened is not None:
        opened.append(1)
    raise Unavailable("down")
    yield
