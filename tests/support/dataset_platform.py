"""A running dataset service over real servers: several instances over one database, each of which can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import Server
from penstock.rpc.structs import from_struct
from penstock.rpc.tokens import Tokens
from penstock.store import Database
from services.dataset.service import Datasets, assemble
from services.dataset.values import to_struct

PROJECT = "library"
PARENT = f"projects/{PROJECT}"


async def nothing_denied() -> set[str]:
    """No token was revoked."""
    return set()


@dataclass
class Instance:
    """One process of the service, so to speak."""

    datasets: Datasets
    server: Server
    tasks: list[asyncio.Task[None]]

    async def kill(self) -> None:
        """Stop without finishing anything."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.server.stop(0)
        self.datasets.scanner.close()


@dataclass
class DatasetPlatform:
    """What outlives an instance, and clients of it."""

    root: Path
    mongodb_uri: str
    database: Database
    objects: ObjectStore
    tokens: Tokens = field(default_factory=lambda: Tokens(Keys.generate()))
    addresses: dict[str, str] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    _closing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    @classmethod
    def open(cls, root: Path, mongodb_uri: str) -> DatasetPlatform:
        """A database and an object store of its own."""
        database = Database.connect(mongodb_uri, f"dataset_{secrets.token_hex(4)}")
        return cls(root, mongodb_uri, database, ObjectStore.open((root / "objects").as_uri()))

    def parts(self, area: str = "") -> Datasets:
        """An instance's parts, with no loop running: `visit` what is to be done. `area`: an object store of its own."""
        objects = ObjectStore.open((self.root / "areas" / area).as_uri()) if area else self.objects
        return assemble(self.database, objects, self.root / "cache")

    async def start(self, *, loops: bool = True) -> Instance:
        """Start an instance; stubs made from now on call it."""
        datasets = self.parts()
        await datasets.repository.prepare()
        server = Server("127.0.0.1:0", [datasets.registration], self.tokens, Denylist(nothing_denied))
        self.addresses["dataset"] = await server.start()
        runs = (datasets.commits.run, datasets.imports.run, datasets.writes.run) if loops else ()
        instance = Instance(datasets, server, [asyncio.create_task(run()) for run in runs])
        self.instances.append(instance)
        return instance

    def client(self, subject: str = "ana", project: str = PROJECT, role: str = "editor") -> Client:
        """A client with a token of its own."""
        token = self.tokens.mint(subject, project, role, ttl=3600)
        channels = Channels(self.addresses, lambda _: token)
        self._closing.push_async_callback(channels.close)
        return Client(channels.stub(DatasetServiceStub, "dataset"))

    async def close(self) -> None:
        """Stop everything, and drop the database."""
        for instance in self.instances:
            await instance.kill()
        await self._closing.aclose()
        await self.database.drop()
        await self.database.close()


def rows_of(records: Iterable[pb.Record]) -> dict[str, dict[str, Any]]:
    """Records as plain values by key."""
    return {record.key: from_struct(record.data) for record in records}


@dataclass(frozen=True)
class Client:
    """What tests ask of the service, in a few words."""

    stub: Any

    async def create(self, id: str, **fields: Any) -> str:
        """A new dataset's name."""
        dataset = pb.Dataset(**fields)
        made = await self.stub.CreateDataset(pb.CreateDatasetRequest(parent=PARENT, dataset_id=id, dataset=dataset))
        return str(made.name)

    async def begin(self, dataset: str, content: bytes, request_id: str = "", **fields: Any) -> pb.Import:
        """Begin an import."""
        spec = {"source": "file.jsonl", "format": "JSONL", "key_field": "id", "size": len(content), **fields}
        request = pb.CreateImportRequest(parent=dataset, request_id=request_id)
        getattr(request, "import").CopyFrom(pb.Import(**spec))
        made: pb.Import = await self.stub.CreateImport(request)
        return made

    async def upload(self, name: str, content: bytes, start: int = 0, chunk: int = 1 << 20) -> None:
        """Send the bytes from `start` on."""
        for at in range(start, len(content), chunk):
            await self.stub.WriteImport(pb.WriteImportRequest(name=name, offset=at, data=content[at : at + chunk]))

    async def import_bytes(self, dataset: str, content: bytes, chunk: int = 1 << 20, **fields: Any) -> pb.Import:
        """Import a file, and wait for its end."""
        begun = await self.begin(dataset, content, **fields)
        await self.upload(begun.name, content, chunk=chunk)
        return await self.ended(begun.name)

    async def ended(self, name: str) -> pb.Import:
        """The import once it has ended."""
        seen: list[pb.Import] = [each async for each in self.stub.WatchImport(pb.WatchImportRequest(name=name))]
        return seen[-1]

    async def import_rows(self, dataset: str, rows: Iterable[Mapping[str, Any]], **fields: Any) -> pb.Import:
        """Import rows as JSON Lines; it must succeed."""
        done = await self.import_bytes(dataset, jsonl(rows), **fields)
        assert done.state == pb.Import.SUCCEEDED, done.reason
        return done

    async def edit(
        self,
        dataset: str,
        put: Mapping[str, Any] | None = None,
        patch: Mapping[str, Any] | None = None,
        delete: Iterable[str] = (),
        draft: str = "mine",
        **fields: Any,
    ) -> pb.Draft:
        """Edit records in a draft."""
        edits = [pb.RecordEdit(key=key, put=to_struct(value)) for key, value in (put or {}).items()]
        edits += [pb.RecordEdit(key=key, patch=to_struct(value)) for key, value in (patch or {}).items()]
        edits += [pb.RecordEdit(key=key, delete=True) for key in delete]
        request = pb.EditRecordsRequest(name=f"{dataset}/drafts/{draft}", edits=edits, **fields)
        made: pb.Draft = await self.stub.EditRecords(request)
        return made

    async def commit(self, dataset: str, message: str = "a change", draft: str = "mine") -> pb.Draft:
        """Commit a draft, and wait for what becomes of it."""
        name = f"{dataset}/drafts/{draft}"
        await self.stub.CommitDraft(pb.CommitDraftRequest(name=name, message=message))
        seen: list[pb.Draft] = [each async for each in self.stub.WatchDraft(pb.WatchDraftRequest(name=name))]
        return seen[-1]

    async def records(self, dataset: str, page_size: int = 1000, **fields: Any) -> list[pb.Record]:
        """All records of all pages."""
        return [record async for page in self.pages(dataset, page_size, **fields) for record in page]

    async def pages(self, dataset: str, page_size: int, **fields: Any) -> AsyncIterator[list[pb.Record]]:
        """The pages of a list."""
        token = ""
        while True:
            request = pb.ListRecordsRequest(parent=dataset, page_size=page_size, page_token=token, **fields)
            answer = await self.stub.ListRecords(request)
            yield list(answer.records)
            token = answer.next_page_token
            if not token:
                return

    async def rows(self, dataset: str, **fields: Any) -> dict[str, dict[str, Any]]:
        """All records as plain values by key."""
        return rows_of(await self.records(dataset, **fields))

    async def versions(self, dataset: str) -> list[pb.Version]:
        """All versions, newest first."""
        answer = await self.stub.ListVersions(pb.ListVersionsRequest(parent=dataset, page_size=1000))
        return list(answer.versions)

    async def diff(self, dataset: str, before: int = 0, after: int = 0, draft: str = "") -> pb.DiffVersionsResponse:
        """A diff, whole."""
        request = pb.DiffVersionsRequest(
            parent=dataset, from_version=before, to_version=after, draft=draft, page_size=1000
        )
        answer: pb.DiffVersionsResponse = await self.stub.DiffVersions(request)
        return answer

    async def manifest(self, dataset: str, version: int) -> pb.Manifest:
        """A version's manifest, waited for."""
        request = pb.GetManifestRequest(name=f"{dataset}/versions/{version}", wait=True)
        answer: pb.Manifest = await self.stub.GetManifest(request)
        return answer


def jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
