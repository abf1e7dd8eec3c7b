"""Metrics as jobs report them: durable, once, per attempt, in order."""

from __future__ import annotations

import math
from typing import Any

import pytest

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.errors import InvalidArgument, PermissionDenied
from penstock.rpc.caller import RUNNER
from services.training.tokens import token_id
from tests.support.training_platform import PROJECT, TrainingPlatform


async def queued(platform: TrainingPlatform, version: str) -> str:
    """A run that nobody starts."""
    await platform.start(reconcile=False)
    return await platform.submit_built_in(platform.stub(), version)


def reporter(platform: TrainingPlatform, run: str, attempt: int) -> Any:
    """A job's client."""
    token = platform.tokens.mint(run, PROJECT, RUNNER, 60, token_id=token_id(run, attempt))
    return platform.stub_with(token)


def batch(run: str, number: int, *values: float, attempt: int = 1) -> pb.AppendMetricsRequest:
    """A report of `loss`."""
    metrics = [pb.Metric(name="loss", step=number * 10 + at, value=value) for at, value in enumerate(values)]
    return pb.AppendMetricsRequest(name=run, attempt=attempt, batch_id=number, metrics=metrics)


async def test_batches_are_kept_once_and_listed_in_order(platform: TrainingPlatform, version: str) -> None:
    run = await queued(platform, version)
    job, stub = reporter(platform, run, 1), platform.stub()
    await job.AppendMetrics(batch(run, 2, 0.3, math.nan))
    await job.AppendMetrics(batch(run, 1, 0.5, math.inf, 0.4))
    await job.AppendMetrics(batch(run, 1, 9.9))  # the same batch again changes nothing
    await reporter(platform, run, 2).AppendMetrics(batch(run, 1, 7.0, attempt=2))
    listed = (await stub.ListMetrics(pb.ListMetricsRequest(name=run, attempt=1))).metrics
    assert [metric.step for metric in listed] == [10, 11, 12, 20, 21]
    assert listed[0].value == 0.5 and math.isinf(listed[1].value) and math.isnan(listed[4].value)
    assert [m.value for m in (await stub.ListMetrics(pb.ListMetricsRequest(name=run, attempt=2))).metrics] == [7.0]


async def test_pages_of_metrics_follow_on_each_other(platform: TrainingPlatform, version: str) -> None:
    run = await queued(platform, version)
    job, stub = reporter(platform, run, 1), platform.stub()
    for number in range(1, 121):
        await job.AppendMetrics(batch(run, number, *[float(number)] * 3))
    values, token = [], ""
    while True:
        request = pb.ListMetricsRequest(name=run, attempt=1, page_size=100, page_token=token)
        page = await stub.ListMetrics(request)
        values += [metric.value for metric in page.metrics]
        token = page.next_page_token
        if not token:
            break
    assert values == [float(number) for number in range(1, 121) for _ in range(3)]


async def test_a_page_token_does_not_lead_to_metrics_of_others(platform: TrainingPlatform, version: str) -> None:
    run = await queued(platform, version)
    await reporter(platform, run, 1).AppendMetrics(batch(run, 1, 0.1, 0.2))
    stub = platform.stub()
    request = pb.ListMetricsRequest(name=run, attempt=1, page_size=1)
    from penstock.rpc.paging import encode_token

    request.page_token = encode_token(["a/b/0001/000000000001", 0], request)
    with pytest.raises(InvalidArgument):
        await stub.ListMetrics(request)


async def test_a_job_reports_for_its_own_attempt_alone(platform: TrainingPlatform, version: str) -> None:
    run = await queued(platform, version)
    other = await platform.submit_built_in(platform.stub(), version)
    job = reporter(platform, run, 1)
    with pytest.raises(PermissionDenied):
        await job.AppendMetrics(batch(run, 1, 0.1, attempt=2))
    with pytest.raises(PermissionDenied):
        await job.AppendMetrics(batch(other, 1, 0.1))
    with pytest.raises(PermissionDenied):
        await job.GetRun(pb.GetRunRequest(name=run))
    with pytest.raises(PermissionDenied):
        await platform.stub().AppendMetrics(batch(run, 1, 0.1))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("batch_id", {"batch_id": 0}),
        ("attempt", {"attempt": 0}),
        ("metrics", {"metrics": [pb.Metric(name="m")] * 1001}),
        ("metrics", {"metrics": []}),
        ("metrics[0].name", {"metrics": [pb.Metric(value=1)]}),
    ],
)
async def test_what_is_no_report_is_refused_by_its_field(
    platform: TrainingPlatform, version: str, field: str, change: dict[str, Any]
) -> None:
    run = await queued(platform, version)
    request = {"name": run, "attempt": 1, "batch_id": 1, "metrics": [pb.Metric(name="m", value=1)], **change}
    with pytest.raises(InvalidArgument) as refused:
        await reporter(platform, run, request["attempt"]).AppendMetrics(pb.AppendMetricsRequest(**request))
    assert refused.value.violations[0].field == field
