"""What an evaluation asks other services: the model, the data, and what an endpoint serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.serving.v1 import serving_service_pb2 as serving_pb
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.errors import NotFound
from penstock.rpc.channels import on_behalf_of

if TYPE_CHECKING:
    from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub
    from penstock.api.serving.v1.serving_service_pb2_grpc import ServingServiceAsyncStub
    from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceAsyncStub

MANIFEST_SECONDS = 30.0


@dataclass
class Peers:
    """Other services, asked on behalf of the author of an evaluation."""

    datasets: DatasetServiceAsyncStub
    training: TrainingServiceAsyncStub
    serving: ServingServiceAsyncStub

    async def check(self, model_version: str, dataset_version: str, baseline: str, author: str) -> None:
        """Raise NotFound, naming the field, unless all exist. An endpoint as the baseline need not exist yet."""
        models = {"evaluation.model_version": model_version}
        if baseline and names.parse(baseline).kind == "model_version":
            models["evaluation.baseline"] = baseline
        with on_behalf_of(names.project_of(model_version), author):
            for field, name in models.items():
                try:
                    await self.training.GetModelVersion(training_pb.GetModelVersionRequest(name=name))
                except NotFound as error:
                    raise NotFound(error.message, field=field) from None
            try:
                await self.datasets.GetVersion(dataset_pb.GetVersionRequest(name=dataset_version))
            except NotFound as error:
                raise NotFound(error.message, field="evaluation.dataset_version") from None

    async def artifact(self, model_version: str, author: str) -> str:
        """The digest of a model's files."""
        with on_behalf_of(names.project_of(model_version), author):
            found = await self.training.GetModelVersion(training_pb.GetModelVersionRequest(name=model_version))
        return found.artifact

    async def manifest(self, dataset_version: str, author: str) -> dataset_pb.Manifest:
        """The files of a dataset version, waited for."""
        with on_behalf_of(names.project_of(dataset_version), author):
            request = dataset_pb.GetManifestRequest(name=dataset_version, wait=True)
            return await self.datasets.GetManifest(request, timeout=MANIFEST_SECONDS)

    async def serves(self, endpoint: str, author: str) -> str:
        """The model version that an endpoint serves; "" if none, or if there is no such endpoint yet."""
        with on_behalf_of(names.project_of(endpoint), author):
            try:
                found = await self.serving.GetEndpoint(serving_pb.GetEndpointRequest(name=endpoint))
            except NotFound:
                return ""
        return found.model_version
