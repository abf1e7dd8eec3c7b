"""Metrics from a file that anybody may append to, in numbered batches, sent until they are taken."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.errors import Unavailable
from penstock.runner import metrics
from penstock.runner.metrics import MetricsFile, MetricsStream, parse_line
from penstock.runner.reporter import Point, Refused


class Receiver:
    """Takes batches as a service would, after failing as often as told."""

    def __init__(self, failures: int = 0, refuse: int = 0) -> None:
        self.failures = failures
        self.refuse = refuse
        self.batches: list[tuple[int, list[Point]]] = []

    def append_metrics(self, batch_id: int, points: Sequence[Point]) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("down")
        if batch_id == self.refuse:
            raise Refused("no such metric")
        self.batches.append((batch_id, list(points)))

    def close(self) -> None:
        pass


@pytest.fixture
def notes() -> list[str]:
    return []


def stream(folder: Path, notes: list[str], receiver: Receiver | None) -> MetricsStream:
    return MetricsStream(MetricsFile(folder / "in", notes.append), folder / "kept", receiver, notes.append)


def test_both_forms_of_a_line_are_read() -> None:
    assert parse_line(b'{"name": "loss", "value": 0.5, "step": 3, "at": 7}', 9.0) == [Point("loss", 3, 0.5, 7.0)]
    assert parse_line(b'{"step": 3, "loss": 0.5, "accuracy": 1}', 9.0) == [
        Point("loss", 3, 0.5, 9.0),
        Point("accuracy", 3, 1.0, 9.0),
    ]
    assert parse_line(b'{"loss": 1}', 9.0) == [Point("loss", 0, 1.0, 9.0)]


@pytest.mark.parametrize("word", ["NaN", '"NaN"', "Infinity", '"Infinity"', "-Infinity", '"-Infinity"'])
def test_what_json_lacks_is_read_too(word: str) -> None:
    [point] = parse_line(f'{{"loss": {word}}}'.encode(), 0.0)
    assert math.isnan(point.value) if "NaN" in word else point.value == float(word.strip('"').lower())


@pytest.mark.parametrize(
    "line",
    [b"loss=1", b"[1]", b'{"loss": "high"}', b'{"loss": true}', b'{"loss": 1, "step": -1}', b'{"loss": 1, "step": 1.5}',
     b'{"loss": 1, "step": "x"}', b'{"loss": 1, "at": -1}', b'{"": 1}', b'{"a\\nb": 1}', b'{"loss": 1' + b"[" * 100_000,
     b'{"loss": 1' + b"0" * 400 + b"}", b'{"loss": 1, "step": NaN}', b"\xff"],
)  # fmt: skip
def test_a_bad_line_is_left_out_and_told(line: bytes, tmp_path: Path, notes: list[str]) -> None:
    file = MetricsFile(tmp_path / "in", notes.append)
    (tmp_path / "in").write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    assert [point.name for point in file.read()] == ["a", "b"]
    assert len(notes) == 1
    assert "line 2 of PENSTOCK_METRICS is left out" in notes[0]


def test_a_line_is_read_when_it_is_whole(tmp_path: Path, notes: list[str]) -> None:
    file = MetricsFile(tmp_path / "in", notes.append)
    with open(tmp_path / "in", "ab", buffering=0) as writer:
        writer.write(b'{"a": 1}\n{"b"')
        assert [p.name for p in file.read()] == ["a"]
        writer.write(b": 2}")
        assert file.read() == []
    assert [p.name for p in file.read(end=True)] == ["b"]
    assert notes == []


def test_a_line_without_end_takes_no_memory(tmp_path: Path, notes: list[str]) -> None:
    file = MetricsFile(tmp_path / "in", notes.append)
    (tmp_path / "in").write_bytes(b"x" * (5 << 20) + b'\n{"a": 1}\n')
    assert [p.name for p in file.read()] == ["a"]
    assert len(notes) == 1


def test_of_too_many_points_the_last_of_each_metric_is_kept(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MAX_POINTS", 5)
    file = MetricsFile(tmp_path / "in", notes.append)
    (tmp_path / "in").write_text("".join(json.dumps({"step": n, "a": n, "b": -n, "at": 1}) + "\n" for n in range(10)))
    assert [(p.name, p.value) for p in file.read()] == [("a", 0), ("b", 0), ("a", 1), ("b", -1), ("a", 2)]
    assert [(p.name, p.step, p.value) for p in file.read(end=True)] == [("b", 9, -9), ("a", 9, 9)]
    assert file.read(end=True) == [] and len(notes) == 1 and "more than 5 metrics" in notes[0]


def test_names_of_metrics_are_bounded(tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_NAMES", 2)
    file = MetricsFile(tmp_path / "in", notes.append)
    (tmp_path / "in").write_text('{"a": 1}\n{"a": 2, "b": 1}\n{"b": 2, "c": 1}\n{"a": 3, "b": 3}\n')
    assert [(p.name, p.value) for p in file.read()] == [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("b", 3)]
    assert notes == ["line 3 of PENSTOCK_METRICS is left out: there are more than 2 names of metrics"]


def test_a_metrics_file_that_is_a_link_is_not_followed(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "in").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        MetricsFile(tmp_path / "in", notes.append)


def test_batches_are_numbered_and_kept_as_they_were_sent(tmp_path: Path, notes: list[str]) -> None:
    receiver = Receiver()
    sent = stream(tmp_path, notes, receiver)
    (tmp_path / "in").write_text(
        "".join(f'{{"loss": {n}, "step": {n}, "at": 1}}\n' for n in range(2500)) + '{"x": NaN}\n'
    )
    sent.poll()
    sent.poll(end=True)
    sent.close(5)
    assert [(number, len(points)) for number, points in receiver.batches] == [(1, 1000), (2, 1000), (3, 501)]
    kept = [json.loads(line) for line in (tmp_path / "kept").read_text().splitlines()]
    assert [b["batch_id"] for b in kept] == [1, 2, 3]
    assert kept[2]["points"][0] == {"name": "loss", "step": 2000, "value": 2000.0, "at": 1.0}
    assert kept[2]["points"][-1]["value"] == "NaN"
    assert notes == []


def test_an_unreachable_service_gets_the_same_batches_later(tmp_path: Path, notes: list[str]) -> None:
    receiver = Receiver(failures=2)
    sent = stream(tmp_path, notes, receiver)
    for step in range(2):
        with open(tmp_path / "in", "a") as file:
            file.write(f'{{"loss": {step}}}\n')
        sent.poll(end=True)
    sent.close(10)
    assert [(number, points[0].value) for number, points in receiver.batches] == [(1, 0.0), (2, 1.0)]
    assert len(notes) == 1
    assert "will be sent again: down" in notes[0]


def test_a_refused_batch_does_not_hold_up_the_next(tmp_path: Path, notes: list[str]) -> None:
    receiver = Receiver(refuse=1)
    sent = stream(tmp_path, notes, receiver)
    for step in range(2):
        with open(tmp_path / "in", "a") as file:
            file.write(f'{{"loss": {step}}}\n')
        sent.poll(end=True)
    sent.close(5)
    assert [number for number, _ in receiver.batches] == [2]
    assert "batch 1 of metrics was refused: no such metric" in notes[0]


def test_a_dead_service_delays_the_end_by_the_given_time_only(tmp_path: Path, notes: list[str]) -> None:
    sent = stream(tmp_path, notes, Receiver(failures=10**9))
    (tmp_path / "in").write_text('{"loss": 1}\n')
    sent.poll(end=True)
    begun = time.monotonic()
    sent.close(0.3)
    assert time.monotonic() - begun < 5
    assert "1 batches of metrics could not be reported; they are in the result" in notes[-1]


def test_few_points_wait_for_company(tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BATCH_SECONDS", 3600.0)
    sent = stream(tmp_path, notes, None)
    for step in range(3):
        with open(tmp_path / "in", "a") as file:
            file.write(f'{{"loss": {step}}}\n')
        sent.poll()
    assert sent.batches == 1  # the first went at once
    sent.poll(end=True)
    assert sent.batches == 2
    sent.close(1)
