"""A training loop that logs: one durable metric a call, and a thousand, against MLflow's server."""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.environments import peer_python, version_of
from bench.harness import Limit, Options, Pairs, Result, Row, interleave, milliseconds, say
from bench.peer_process import Script, http_server
from bench.platform import PROJECT, Platform, running_platform
from penstock import names
from penstock.backing.ports import free_port
from penstock.jobs.spec import Report
from penstock.rpc.caller import RUNNER
from penstock.run import log_metrics
from penstock.runner.metrics import MetricsFile, MetricsStream
from penstock.runner.reporter import GrpcReporter, Point

BATCH = 1_000
POLL_SECONDS = 0.1  # as the runner looks
LIMITS = {1: Limit(">=", 15), 4: Limit(">=", 4)}
# MLflow's server and client else ask servers outside for news; and its job runner, which nothing here asks for, takes
# time and leaves a folder in /dev/shm.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


class Reporters:
    """Our side: what a job's runner uses, one for each client, each with the token of its own run."""

    def __init__(self, platform: Platform, clients: int) -> None:
        self._platform = platform
        self._batch = itertools.count(1)
        self._loops = itertools.count()
        self._made = [self._reporter(f"bench-{clients}-{number}") for number in range(clients)]

    def _reporter(self, id: str) -> GrpcReporter:
        run = names.build("run", PROJECT, id)
        token = self._platform.tokens.mint(run, PROJECT, RUNNER, 3600, token_id=f"{id}.1")
        return GrpcReporter(run, 1, lambda: Report(self._platform.services_address, token))

    def seconds(self, points: int, calls: int) -> float:
        """How long `calls` reports of `points` metrics of every client take, at once."""
        work = [threading.Thread(target=self._many, args=(made, points, calls)) for made in self._made]
        began = time.perf_counter()
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        return time.perf_counter() - began

    def _many(self, reporter: GrpcReporter, points: int, calls: int) -> None:
        for _ in range(calls):
            number = next(self._batch)
            reporter.append_metrics(
                number, [Point("loss", number * BATCH + i, 0.5, time.time()) for i in range(points)]
            )

    def loop(self, points: int) -> float:
        """How long a training loop that logs `points` metrics one by one takes, until the last of them is durable.

        By what a job has: the file that `penstock.run` appends to, and the runner's own reader, batches and reporter.
        """
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
            file = Path(folder) / "metrics"
            reporter = self._reporter(f"bench-loop-{next(self._loops)}")
            stream = MetricsStream(MetricsFile(file, say), Path(folder) / "kept", reporter, say)
            os.environ["PENSTOCK_METRICS"] = str(file)
            began = time.perf_counter()
            logging = threading.Thread(target=_log, args=(points,))
            logging.start()
            while logging.is_alive():
                stream.poll()
                logging.join(POLL_SECONDS)
            stream.poll(end=True)
            stream.close(60)
            taken = time.perf_counter() - began
            del os.environ["PENSTOCK_METRICS"]
            return taken

    def close(self) -> None:
        """Close the connections."""
        for reporter in self._made:
            reporter.close()


def measure(options: Options) -> Result:
    """Single metrics and batches: one client against MLflow with one worker, four against four."""
    rows = []
    with running_platform() as platform:
        for workers in (1, 4):
            say(f"metrics: MLflow with {workers} worker(s)")
            with mlflow(workers) as peer:
                rows += _rows(platform, peer, workers, options)
    return Result("metrics", rows, _settings())


def _rows(platform: Platform, peer: Script, workers: int, options: Options) -> list[Row]:
    reporters = Reporters(platform, workers)
    rows = []
    for operation, points, calls, theirs in (
        ("single", 1, options.pick(200, 20), options.pick(20, 4)),
        ("batch", BATCH, options.pick(20, 2), options.pick(3, 1)),
    ):
        found = interleave(
            partial(_ours, reporters, points, calls, workers),
            partial(_theirs, peer, operation, theirs, workers),
            options.pick(7, 1),
        )
        what = "one durable metric" if operation == "single" else f"{BATCH:,} metrics in one call"
        rows.append(_row(f"{what}, MLflow with {workers} worker{'s' if workers > 1 else ''}", found, workers))
    if workers == 1:
        rows.append(_loop(reporters, peer, options))
    reporters.close()
    return rows


def _log(points: int) -> None:
    for step in range(points):
        log_metrics(step=step, loss=0.5)


def _loop(reporters: Reporters, peer: Script, options: Options) -> Row:
    """What a user waits for: no budget, beside the single call that has one."""
    points = options.pick(BATCH, 50)
    found = interleave(
        lambda: reporters.loop(points) / points,
        partial(_theirs, peer, "single", options.pick(20, 4), 1),
        options.pick(7, 1),
    )
    what = f"a loop that logs {points:,} metrics one by one, until all are durable"
    ours, theirs = milliseconds(found.ours), milliseconds(found.peer)
    return Row(what, found.speedup(), ours=ours, peer=theirs, note="a metric, 1 worker")


def _ours(reporters: Reporters, points: int, calls: int, clients: int) -> float:
    """Seconds a call."""
    return reporters.seconds(points, calls) / (calls * clients)


def _theirs(peer: Script, operation: str, calls: int, clients: int) -> float:
    """Seconds a call."""
    return float(peer.ask(op=operation, clients=clients, calls=calls)["seconds"]) / (calls * clients)


def _row(what: str, found: Pairs, workers: int) -> Row:
    note = "a call" if workers == 1 else f"a call, {workers} clients at once"
    return Row(
        what, found.speedup(), LIMITS[workers], ours=milliseconds(found.ours), peer=milliseconds(found.peer), note=note
    )


@contextmanager
def mlflow(workers: int) -> Iterator[Script]:
    """An MLflow server and a client of it, both in MLflow's own environment."""
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-mlflow-")))
        port = free_port()
        python = str(peer_python("mlflow"))
        command = [python, *_server_arguments(workers, port, f"sqlite:///{folder}/mlflow.db")]
        closing.enter_context(http_server(command, port, "/health", folder, _QUIET))
        client = [python, str(Path(__file__).parent / "peers" / "mlflow_client.py"), f"http://127.0.0.1:{port}"]
        yield closing.enter_context(Script(client, folder, _QUIET))


def _server_arguments(workers: int, port: int | str, store: str) -> list[str]:
    return [
        "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers),
        "--backend-store-uri", store, "--default-artifact-root", "./artifacts",
    ]  # fmt: skip


def _settings() -> list[str]:
    server = " ".join(_server_arguments(1, "PORT", "sqlite:///FILE"))
    return [
        "ours: TrainingService.AppendMetrics by the runner's own client (GrpcReporter), straight to the service as a "
        "job does, each call durable (w: majority, j: true) before its answer",
        f"peer: MLflow {version_of('mlflow')}: `python {server}` (and --workers 4), SQLite with its defaults, "
        "MlflowClient.log_metric and log_batch over REST",
        "the loop: penstock.run.log_metrics 1,000 times, as in a job, while the runner's reader looks every 0.1 s and "
        "sends batches; until the last is durable. The peer's loop is its single call, which is durable each time",
        "as many clients (threads of one process) as the peer has workers, on both sides",
    ]
