"""What training asks the dataset service: does a version exist, and of which files is it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import NotFound
from penstock.jobs.spec import InputFile, JobInput
from penstock.rpc.channels import on_behalf_of
from penstock.sdk.datasets import input_card

if TYPE_CHECKING:
    from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub

INPUT = "train"  # the folder in PENSTOCK_INPUT_DIR
MANIFEST_SECONDS = 30.0


class Datasets:
    """The dataset service, asked on behalf of the author of a run."""

    def __init__(self, stub: DatasetServiceAsyncStub) -> None:
        self._stub = stub

    async def check_version(self, version: str, author: str) -> None:
        """Raise NotFound, naming the run's field, unless the dataset version exists."""
        with on_behalf_of(names.project_of(version), author):
            try:
                await self._stub.GetVersion(pb.GetVersionRequest(name=version))
            except NotFound as error:
                raise NotFound(f"{error.message} Choose a version that exists.", field="run.dataset_version") from error

    async def manifest(self, version: str, author: str) -> pb.Manifest:
        """The manifest of a version, waited for if need be. Raises NotFound, Unavailable (also when it takes long)."""
        with on_behalf_of(names.project_of(version), author):
            request = pb.GetManifestRequest(name=version, wait=True)
            return await self._stub.GetManifest(request, timeout=MANIFEST_SECONDS)


def job_input(manifest: pb.Manifest) -> JobInput:
    """The dataset version as the command finds it: its partitions, and what they are in `input.json`."""
    files = tuple(InputFile(file.path, file.digest, file.size) for file in manifest.files)
    return JobInput(INPUT, files, meta=input_card(manifest))
