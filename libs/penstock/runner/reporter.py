"""Whom the runner tells about metrics while a job runs. Only a hint: the result holds them all, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from penstock.errors import PenstockError, Unavailable

if TYPE_CHECKING:
    import grpc

    from penstock.jobs.spec import Report

DEADLINE_SECONDS = 10.0


@dataclass(frozen=True)
class Point:
    """One value of one metric. `at` is in seconds since 1970; `value` may be NaN or infinite."""

    name: str
    step: int
    value: float
    at: float


class Refused(PenstockError):
    """The service will never take this batch: it is to be left out."""


class Reporter(Protocol):
    """Sends batches of points; the same batch id again must change nothing at the receiver."""

    def append_metrics(self, batch_id: int, points: Sequence[Point]) -> None:
        """Send one batch. Raises Refused if it must not be sent again, Unavailable (or another error) if it must."""

    def close(self) -> None:
        """Give back what connects."""


class GrpcReporter:
    """Reports to TrainingService.AppendMetrics. The address and token are read anew after each failure.

    gRPC is imported at the first batch: it costs a fifth of a second, and a job without metrics needs none of it.
    """

    def __init__(self, resource: str, attempt: int, report: Callable[[], Report | None]) -> None:
        self._resource = resource
        self._attempt = attempt
        self._report = report
        self._channel: grpc.Channel | None = None
        self._metadata: tuple[tuple[str, str], ...] = ()

    def append_metrics(self, batch_id: int, points: Sequence[Point]) -> None:
        """Send one batch."""
        import grpc

        from penstock.api.training.v1 import training_service_pb2 as pb
        from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceStub

        request = pb.AppendMetricsRequest(name=self._resource, attempt=self._attempt, batch_id=batch_id)
        for point in points:
            metric = request.metrics.add(name=point.name, step=point.step, value=point.value)
            metric.time.FromNanoseconds(int(point.at * 1e9))
        try:
            stub = TrainingServiceStub(self._connect())
            stub.AppendMetrics(request, timeout=DEADLINE_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            self.close()
            code, details = error.code(), error.details()
            if code == grpc.StatusCode.INVALID_ARGUMENT:
                raise Refused(f"{details}") from error
            raise Unavailable(f"{code.name}: {details}") from error

    def close(self) -> None:
        """Close the channel; the next batch makes a new one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connect(self) -> grpc.Channel:
        import grpc

        if self._channel is None:
            report = self._report()
            if report is None:
                raise Unavailable("Nobody asked for reports of this job yet.")
            self._metadata = (("authorization", f"Bearer {report.token}"),)
            self._channel = grpc.insecure_channel(report.address)
        return self._channel
