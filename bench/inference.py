"""Predictions through Envoy with all checks on, against the same Triton without it, and against FastAPI."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.environments import version_of
from bench.harness import Limit, Options, Result, Row, Spread, milliseconds, per_second, say
from bench.load import Ghz, Load, Target, Wrk
from bench.models import trivial_model, working_model
from bench.serving import fastapi, fastapi_arguments, served
from penstock.errors import FailedPrecondition

CLIENTS = (1, 16)
WORKING_RATE, WORKING_P99 = Limit(">=", 0.95), Limit("<=", 1.2)
TRIVIAL_RATE, OVER_FASTAPI = Limit(">=", 0.5), Limit(">=", 1.5)
Generator = Callable[[Target, int, int], Load]


@dataclass(frozen=True)
class Turns:
    """What two targets did in turns."""

    ours: Sequence[Load]
    peer: Sequence[Load]

    def ratio(self, of: Callable[[Load], float]) -> Spread:
        """Ours divided by the peer's, pair by pair."""
        return Spread.of([of(a) / of(b) for a, b in zip(self.ours, self.peer, strict=True)])

    def row(self, what: str, limit: Limit | None, note: str = "") -> Row:
        """The line of their rates."""
        sides = [per_second([load.rate for load in side]) for side in (self.ours, self.peer)]
        return Row(what, self.ratio(lambda load: load.rate), limit, ours=sides[0], peer=sides[1], note=note)

    def p99(self, what: str, limit: Limit | None) -> Row:
        """The line of their 99th percentiles."""
        sides = [milliseconds([load.p99 for load in side]) for side in (self.ours, self.peer)]
        return Row(what, self.ratio(lambda load: load.p99), limit, ours=sides[0], peer=sides[1])


def measure(options: Options) -> Result:
    """REST and gRPC, 1 and 16 clients, a model of 2 ms and a trivial one."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as root:
        folder = Path(root)
        generators: dict[str, Generator] = {}
        for name, make in (("REST", Wrk), ("gRPC", Ghz)):
            try:
                generators[name] = make(folder).run
            except FailedPrecondition as error:
                rows.append(Row(f"inference over {name}", None, note=str(error)))
        for kind, model in (
            ("2 ms", working_model(folder / "working")),
            ("trivial", trivial_model(folder / "trivial")),
        ):
            rows += _model(kind, model, generators, options)
    return Result("inference", rows, _settings())


def _model(kind: str, model: Path, generators: dict[str, Generator], options: Options) -> list[Row]:
    rows = []
    with served(model) as targets:
        for protocol, generate in generators.items():
            for clients in CLIENTS:
                say(f"inference: model {kind}, {protocol}, {clients} client(s)")
                turns = take_turns(generate, targets.edge, targets.direct, clients, options)
                rows += _against_triton(kind, protocol, clients, turns)
        if kind == "trivial" and "REST" in generators:
            rows += _against_fastapi(model, targets.edge, generators["REST"], options)
    return rows


def _against_triton(kind: str, protocol: str, clients: int, turns: Turns) -> list[Row]:
    what = f"{kind} model, {protocol}, {clients} client{'s' if clients > 1 else ''}, Envoy / Triton alone"
    if clients == 1:  # what one client feels is the time that Envoy adds
        added = statistics.median(a.p50 - b.p50 for a, b in zip(turns.ours, turns.peer, strict=True))
        return [turns.row(what, None, note=f"p50 + {added * 1e3:.2f} ms")]
    if kind == "trivial":
        return [turns.row(what, TRIVIAL_RATE)]
    return [turns.row(what, WORKING_RATE), turns.p99("… p99", WORKING_P99)]


def _against_fastapi(model: Path, edge: Target, generate: Generator, options: Options) -> list[Row]:
    rows = []
    cores = len(os.sched_getaffinity(0))
    for workers in sorted({1, cores}):
        say(f"inference: FastAPI, {workers} worker(s)")
        with fastapi(model, workers) as peer:
            turns = take_turns(generate, edge, peer, CLIENTS[-1], options)
        what = f"trivial model, REST, {CLIENTS[-1]} clients, Envoy and Triton / FastAPI with {workers} worker(s)"
        rows.append(turns.row(what, OVER_FASTAPI if workers == 1 else None))
    return rows


def take_turns(generate: Generator, ours: Target, peer: Target, clients: int, options: Options) -> Turns:
    """Load on both in turns, after one that does not count."""
    seconds, pairs = options.pick(4, 1), options.pick(7, 1)
    for target in (ours, peer):
        generate(target, clients, 1)
    found: tuple[list[Load], list[Load]] = ([], [])
    for number in range(pairs):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            found[side].append(generate((ours, peer)[side], clients, seconds))
    return Turns(*found)


def _settings() -> list[str]:
    server = " ".join(fastapi_arguments(1, "PORT"))
    return [
        "ours: Envoy as `penstock up` starts it (token, project and endpoint checked; prediction name; access log) in "
        "front of Triton, asked with a user's token",
        "peer: the same Triton (nvidia-pytriton, Python backend, onnxruntime, 1 instance, dynamic batching) asked "
        "directly",
        f"peer: FastAPI {version_of('fastapi')}, uvicorn {version_of('fastapi', 'uvicorn')}, onnxruntime "
        f"{version_of('fastapi', 'onnxruntime')}: `python {server}`",
        "load: `wrk -t1 -cN -d4s` for REST, `ghz -c N --connections N -z 4s` for gRPC, closed loop, one row a request; "
        "the generators share the cores with what they measure",
        "the model of 2 ms is made so that a row takes 2 ms on one thread of this machine when it is made",
    ]
