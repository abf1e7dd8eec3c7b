"""Metrics on their way to a real gRPC server, which may be down, or come back at another address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.api.training.v1.training_service_pb2_grpc import (
    TrainingServiceServicer,
    add_TrainingServiceServicer_to_server,
)
from penstock.jobs.executor import Phase
from penstock.jobs.spec import Report

from .conftest import Bench


class Training(TrainingServiceServicer):
    """Keeps what it is told, batches by their id."""

    def __init__(self) -> None:
        self.batches: dict[int, pb.AppendMetricsRequest] = {}
        self.calls = 0
        self.failures: list[grpc.StatusCode] = []

    def AppendMetrics(self, request: pb.AppendMetricsRequest, context: Any) -> pb.AppendMetricsResponse:
        self.calls += 1
        if dict(context.invocation_metadata()).get("authorization") != "Bearer token-1":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        self.batches.setdefault(request.batch_id, request)
        if self.failures:
            context.abort(self.failures.pop(0), "injected, after it was taken")
        return pb.AppendMetricsResponse()

    def points(self) -> list[tuple[str, int, float]]:
        return [(m.name, m.step, m.value) for _, batch in sorted(self.batches.items()) for m in batch.metrics]


@pytest.fixture
def training() -> Iterator[tuple[Training, str]]:
    service = Training()  # type: ignore[abstract]
    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_TrainingServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(0).wait()


STEPS = """
import time
from penstock import run
for step in range(5):
    run.log_metrics(loss=1 / (step + 1), rate=float("inf"), step=step)
    time.sleep(0.15)
"""


STAYS = STEPS + "\nimport os\nwhile not os.path.exists(run.checkpoint_dir() / 'go'): time.sleep(0.02)\n"


async def test_metrics_arrive_while_the_job_runs(bench: Bench, training: tuple[Training, str]) -> None:
    service, address = training
    spec = bench.spec("python", "-c", STAYS, report=Report(address, "token-1"))
    await bench.executor.start(spec)
    await bench.until(spec.ref, Phase.HELD, Phase.RESULT)
    while len(service.points()) < 10:
        assert (await bench.until(spec.ref, Phase.HELD)).result is None
    (bench.attempt(spec).checkpoint / "go").touch()
    seen = await bench.until(spec.ref, Phase.RESULT)
    assert seen.result is not None and seen.result.metrics is not None
    assert service.points() == [p for n in range(5) for p in (("loss", n, 1 / (n + 1)), ("rate", n, float("inf")))]
    request = service.batches[1]
    assert (request.name, request.attempt) == ("projects/p/runs/job", 1)
    assert abs(request.metrics[0].time.ToSeconds() - seen.result.started.timestamp()) < 60
    kept = [json.loads(line) for line in bench.objects.get_bytes(seen.result.metrics.digest).splitlines()]
    assert [b["batch_id"] for b in kept] == sorted(service.batches)
    assert [(p["name"], p["step"]) for b in kept for p in b["points"]] == [p[:2] for p in service.points()]


async def test_a_batch_that_may_have_been_taken_is_sent_again_under_its_id(
    bench: Bench, training: tuple[Training, str]
) -> None:
    service, address = training
    service.failures = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INTERNAL]
    spec = bench.spec("python", "-c", STAYS, report=Report(address, "token-1"))
    await bench.executor.start(spec)
    async with asyncio.timeout(30):
        while len(service.points()) < 10:  # noqa: ASYNC110 - a server of threads
            await asyncio.sleep(0.02)
    (bench.attempt(spec).checkpoint / "go").touch()
    assert (await bench.result(spec)).exit_code == 0
    assert len(service.points()) == 10
    assert service.calls == len(service.batches) + 3


async def test_a_service_that_comes_back_elsewhere_is_told_all(bench: Bench, training: tuple[Training, str]) -> None:
    service, address = training
    spec = bench.spec("python", "-c", STAYS, report=Report("127.0.0.1:1", "old token"))
    await bench.executor.start(spec)
    await bench.log_with(spec, "metrics cannot be reported now")
    await bench.executor.report_to(spec.ref, Report(address, "token-1"))
    (bench.attempt(spec).checkpoint / "go").touch()
    await bench.until(spec.ref, Phase.RESULT)
    assert len(service.points()) == 10
    assert "token" not in await bench.log(spec)


async def test_without_a_service_the_result_has_all_metrics(bench: Bench) -> None:
    result = await bench.result(bench.spec("python", "-c", STEPS, report=Report("127.0.0.1:1", "t")))
    assert result.state == "SUCCEEDED"
    batches = [json.loads(line) for line in bench.objects.get_bytes(result.metrics.digest).splitlines()]
    points = [p for b in batches for p in b["points"]]
    assert len(points) == 10
    assert points[1]["value"] == "Infinity"
