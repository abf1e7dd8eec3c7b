"""What the table says of measurements; no time is asserted anywhere."""

from __future__ import annotations

import json

import pytest

from bench.command import BENCHES, arguments, main
from bench.environments import PEERS, version_of
from bench.harness import Limit, Options, Result, Row, Spread, interleave, percentile
from bench.report import document, text


def test_sides_are_measured_in_turns_and_compared_pair_by_pair() -> None:
    order: list[str] = []
    values = {"ours": iter([9.0, 2.0, 3.0, 8.0]), "peer": iter([9.0, 1.0, 2.0, 2.0])}

    def side(name: str) -> float:
        order.append(name)
        return next(values[name])

    found = interleave(lambda: side("ours"), lambda: side("peer"), pairs=3)

    assert order == ["ours", "peer", "ours", "peer", "peer", "ours", "ours", "peer"]  # the first pair warms up
    assert found.ratio() == Spread(median=2.0, low=1.5, high=4.0, count=3)
    assert found.speedup() == Spread(median=0.5, low=0.25, high=2 / 3, count=3)


def test_a_budget_is_kept_at_its_limit_and_short_beyond() -> None:
    assert Limit(">=", 0.6).met_by(0.6) and not Limit(">=", 0.6).met_by(0.59)
    assert Limit("<=", 2).met_by(2.0) and not Limit("<=", 2).met_by(2.01)
    short = Row("import", Spread.of([0.5, 0.55, 0.9]), Limit(">=", 0.6))
    assert short.verdict == "short"  # the median counts, not the best
    assert Row("import", None, Limit(">=", 0.6), note="wrk is missing").verdict == "not measured"
    assert Row("import", Spread.of([1.0])).verdict == ""


def test_no_measurement_makes_no_spread() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])


def test_percentiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert (percentile(values, 0.0), percentile(values, 0.5), percentile(values, 0.99)) == (1.0, 3.0, 5.0)


def test_the_report_has_budgets_ratios_ranges_settings_and_the_machine() -> None:
    row = Row("record import", Spread.of([0.7, 0.65, 0.8]), Limit(">=", 0.6), ours="3/s", peer="4/s", note="small")
    missing = Row("inference over gRPC", None, note="ghz is missing: put it on PATH")
    results = [Result("import", [row, missing], ["peer: pymongo"])]

    printed = text(results, "2 cores", quick=False)

    for part in (">= 0.6 x", "0.7 x", "0.65 to 0.8, n=3", "ok", "not measured", "ghz is missing", "peer: pymongo"):
        assert part in printed
    assert "machine: 2 cores" in printed
    assert "--quick" not in printed and "--quick" in text(results, "2 cores", quick=True)
    facts = json.loads(json.dumps(document(results, "2 cores", quick=False)))
    assert facts["results"][0]["rows"][0]["value"] == {"median": 0.7, "low": 0.65, "high": 0.8, "count": 3}
    assert facts["results"][0]["rows"][1]["verdict"] == "not measured"


def test_benches_are_chosen_by_name() -> None:
    assert arguments(["metrics", "--quick"]).names == ["metrics"]
    assert arguments([]).names == []
    with pytest.raises(SystemExit) as wrong:
        arguments(["speed"])
    assert wrong.value.code == 2


def test_a_bench_that_cannot_be_run_is_told_and_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock.errors import Unavailable

    def broken(options: Options) -> Result:
        raise Unavailable("the server did not start")

    monkeypatch.setattr("bench.events.measure", broken)
    monkeypatch.setattr("bench.demo.measure", lambda options: Result("demo", [Row("demo", Spread.of([1.0]), unit="s")]))

    assert main(["events", "demo"]) == 1

    output = capsys.readouterr()
    assert "the server did not start" in output.err
    assert "not measured" in output.out and "1 s" in output.out


def test_peers_are_locked_with_digests() -> None:
    for name in ("dvc", "mlflow", "fastapi"):
        assert version_of(name)
        lines = (PEERS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        pinned = [number for number, line in enumerate(lines) if "==" in line]
        assert all("--hash=sha256:" in lines[number + 1] for number in pinned)


def test_every_bench_of_the_list_is_there() -> None:
    import importlib.util

    for module in BENCHES.values():
        assert importlib.util.find_spec(f"bench.{module}") is not None
