"""Benches that need nothing but our own environment run through in quick mode, on real servers."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from bench import events, record_import
from bench.harness import Options, Result
from bench.models import trivial_model
from bench.serving import served
from bench.usage import memory, processes, processor_seconds
from penstock.backing.ports import free_port
from penstock.backing.process import http_ok


def check(result: Result) -> None:
    """Everything was measured, and every side is named."""
    assert result.settings
    for row in result.rows:
        assert row.value is not None and math.isfinite(row.value.median) and row.value.median > 0
        assert row.peer


def test_the_events_bench_runs() -> None:
    result = events.measure(Options(quick=True))
    check(result)
    assert len(result.rows) == 3


def test_the_import_bench_runs() -> None:
    check(record_import.measure(Options(quick=True)))


async def test_usage_is_that_of_the_home_s_processes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert processes(home) == []
    own = [os.getpid()]
    assert memory(own) > 10_000_000 and processor_seconds(own) > 0
    assert not await http_ok(free_port(), "/")  # nothing else was started


@pytest.mark.usefixtures("triton_environment")
def test_a_served_model_is_reached_directly_and_through_the_edge_with_a_token_only(tmp_path: Path) -> None:
    import json
    import urllib.error
    import urllib.request

    from bench.models import INPUT, NAME

    def ask(port: int, headers: dict[str, str]) -> int:
        url = f"http://127.0.0.1:{port}/v2/models/{NAME}/infer"
        body = json.dumps({"inputs": [INPUT]}).encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer)["outputs"][0]["data"] == pytest.approx(INPUT["data"])
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    with served(trivial_model(tmp_path / "model")) as targets:
        assert ask(targets.direct.http_port, {}) == 200
        assert ask(targets.edge.http_port, targets.edge.headers) == 200
        assert ask(targets.edge.http_port, {}) == 401  # so the checks are on
