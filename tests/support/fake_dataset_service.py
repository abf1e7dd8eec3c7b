"""A stand-in for the dataset service, for tests of services that only read versions and decide when there are any.

It answers GetVersion and GetManifest from memory, with real Parquet partitions in a real object store. Tests from end
to end use the real service.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from penstock.errors import NotFound, Unavailable
from penstock.objects import ObjectStore

SERVICE = "penstock.api.dataset.v1.DatasetService"


class FakeDatasetService(DatasetServiceServicer):
    """Versions put there by `add`; a manifest that is withheld is waited for, as it would be while it is written."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._manifests: dict[str, pb.Manifest] = {}
        self._there = asyncio.Event()
        self._there.set()

    def add(self, project: str, dataset: str, rows: Sequence[dict[str, Any]], *, label: str, number: int = 1) -> str:
        """Keep `rows` (each with its key in the field `id`) as a version; gives its name."""
        version = names.build("dataset_version", project, dataset, number)
        self._manifests[version] = put_manifest(self._objects, version, rows, label)
        return version

    def withhold(self) -> None:
        """Let manifests be waited for, until `release`."""
        self._there.clear()

    def release(self) -> None:
        """Answer those who wait."""
        self._there.set()

    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.Version:
        """The version, without counts."""
        manifest = self._find(request.name)
        number = names.parse(request.name).number
        return pb.Version(name=request.name, number=number, record_count=manifest.records, manifest=manifest.digest)

    async def GetManifest(self, request: pb.GetManifestRequest, context: Any) -> pb.Manifest:
        """The manifest; waits like the real service."""
        manifest = self._find(request.name)
        try:
            await asyncio.wait_for(
                self._there.wait(), (context.time_remaining() or 30.0) - 0.1 if request.wait else 0.01
            )
        except TimeoutError as error:
            raise Unavailable("The partitions are still being written: try again.") from error
        return manifest

    def _find(self, name: str) -> pb.Manifest:
        if name not in self._manifests:
            raise NotFound(f"{name} does not exist.")
        return self._manifests[name]


def put_manifest(objects: ObjectStore, version: str, rows: Sequence[dict[str, Any]], label: str) -> pb.Manifest:
    """Store rows as two Parquet partitions; gives their manifest."""
    manifest = pb.Manifest(version=version, records=len(rows), key_field="id", label_field=label)
    number = names.parse(version).number
    for index in range(2):
        part = [{"_key": str(row["id"]), "_revision": f"{row['id']}/{number}", **row} for row in rows[index::2]]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(part), buffer)
        ref = objects.put_bytes(buffer.getvalue())
        path = f"part-{index:05d}.parquet"
        manifest.files.add(path=path, digest=ref.digest, size=ref.size, records=len(part))
    manifest.digest = objects.put_bytes(manifest.SerializeToString(deterministic=True)).digest
    return manifest
