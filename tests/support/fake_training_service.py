"""A stand-in for the training service, for tests of services that only read model versions.

It answers GetModelVersion from memory; the files are real, in a real object store. Tests from end to end use the real
service.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock import names
from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceServicer
from penstock.errors import NotFound
from penstock.objects import ObjectStore
from penstock.objects.trees import put_tree

SERVICE = "penstock.api.training.v1.TrainingService"


class FakeTrainingService(TrainingServiceServicer):
    """Model versions put there by `add`."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._versions: dict[str, pb.ModelVersion] = {}

    def add(self, project: str, model: str, folder: Path) -> str:
        """Keep a model directory as the next version of a model; gives its name."""
        number = 1 + sum(name.startswith(f"projects/{project}/models/{model}/") for name in self._versions)
        name = names.build("model_version", project, model, number)
        artifact = put_tree(self._objects, folder).digest
        self._versions[name] = pb.ModelVersion(name=name, number=number, artifact=artifact)
        return name

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Any) -> pb.ModelVersion:
        """The version."""
        if request.name not in self._versions:
            raise NotFound(f"{request.name} does not exist.")
        return self._versions[request.name]
