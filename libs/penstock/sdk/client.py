"""The client: one channel to the platform's one port, and a typed entrance to each service."""

from __future__ import annotations

from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from penstock import names
from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub
from penstock.api.evaluation.v1.evaluation_service_pb2_grpc import EvaluationServiceStub
from penstock.api.event.v1.event_service_pb2_grpc import EventLogServiceStub, EventServiceStub
from penstock.api.lineage.v1.lineage_service_pb2_grpc import LineageServiceStub
from penstock.api.pipeline.v1.pipeline_service_pb2_grpc import PipelineServiceStub
from penstock.api.project.v1.project_service_pb2_grpc import ProjectServiceStub
from penstock.api.serving.v1.serving_service_pb2_grpc import ServingServiceStub
from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceStub
from penstock.api.tuning.v1.tuning_service_pb2_grpc import TuningServiceStub
from penstock.runtime.settings import ClientSettings
from penstock.sdk.addresses import check_token, split_url
from penstock.sdk.interceptors import Session
from penstock.sdk.local import is_kept_up
from penstock.sdk.references import ids_of
from penstock.sdk.retries import PATIENCE

if TYPE_CHECKING:
    from penstock.sdk.datasets import DatasetClient
    from penstock.sdk.endpoints import EndpointClient

MAX_MESSAGE = 16 * 1024 * 1024


class Client:
    """A connection to a Penstock platform for one project.

    `url` is what `penstock up` printed (`http://127.0.0.1:8420`, or `https://…`), `token` a token's text; both, and
    `project`, default to the environment (PENSTOCK_URL, PENSTOCK_TOKEN, PENSTOCK_PROJECT) and the local home.
    The attributes named after services are the generated stubs; they raise `penstock.errors`. Calls that may be
    repeated are, for `patience` seconds, while a platform that is there does not answer.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        project: str | None = None,
        *,
        patience: float = PATIENCE,
    ) -> None:
        settings = ClientSettings.from_environ()
        self.url = (url or settings.url).rstrip("/")
        self.token = check_token(token or settings.token)
        self.project_id = names.check_id(project or settings.project, "project")
        scheme, target = split_url(self.url)
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.keepalive_time_ms", 30_000),
            # By default a channel waits up to two minutes before it looks again for a server that was down.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 10_000),  # in fact the time that one connect may take
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ]
        if scheme == "https":
            channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(), options)
        else:
            channel = grpc.insecure_channel(target, options)
        self._session = Session(self.token, patience, lambda: is_kept_up(settings.home, self.url))
        self._raw = channel
        self.channel = grpc.intercept_channel(channel, self._session)

    @property
    def is_there(self) -> bool:
        """Whether the platform has answered already, or is kept up on this machine: worth being waited for."""
        return self._session.is_there

    @property
    def project(self) -> str:
        """The resource name of the project."""
        return names.build("project", self.project_id)

    @property
    def last_writes(self) -> dict[str, int]:
        """Sequences of this client's last writes: what reads of projections are asked to include."""
        return dict(self._session.last_writes)

    def name(self, kind: str, *ids: str | int) -> str:
        """The name of a resource of this project, by its ids or a full name; raises InvalidArgument."""
        return names.build(kind, self.project_id, *ids_of(kind, self.project_id, ids))

    @cached_property
    def projects(self) -> ProjectServiceStub:
        """The project service."""
        return ProjectServiceStub(self.channel)

    @cached_property
    def datasets(self) -> DatasetServiceStub:
        """The dataset service."""
        return DatasetServiceStub(self.channel)

    @cached_property
    def training(self) -> TrainingServiceStub:
        """The training service."""
        return TrainingServiceStub(self.channel)

    @cached_property
    def tuning(self) -> TuningServiceStub:
        """The tuning service."""
        return TuningServiceStub(self.channel)

    @cached_property
    def evaluations(self) -> EvaluationServiceStub:
        """The evaluation service."""
        return EvaluationServiceStub(self.channel)

    @cached_property
    def serving(self) -> ServingServiceStub:
        """The serving service."""
        return ServingServiceStub(self.channel)

    @cached_property
    def pipelines(self) -> PipelineServiceStub:
        """The pipeline service."""
        return PipelineServiceStub(self.channel)

    @cached_property
    def lineage(self) -> LineageServiceStub:
        """The lineage service."""
        return LineageServiceStub(self.channel)

    @cached_property
    def events(self) -> EventServiceStub:
        """Publish and follow events."""
        return EventServiceStub(self.channel)

    @cached_property
    def event_logs(self) -> EventLogServiceStub:
        """Dead letters and replay, for operators."""
        return EventLogServiceStub(self.channel)

    def dataset(self, dataset_id: str) -> DatasetClient:
        """Work with one dataset."""
        from penstock.sdk.datasets import DatasetClient  # the import costs what only its users should pay

        return DatasetClient(self, dataset_id)

    def endpoint(self, endpoint_id: str) -> EndpointClient:
        """Work with one endpoint."""
        from penstock.sdk.endpoints import EndpointClient

        return EndpointClient(self, endpoint_id)

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
