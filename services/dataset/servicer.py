"""DatasetService on the wire: converts, delegates, returns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.empty_pb2 import Empty

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceServicer
from penstock.errors import FailedPrecondition, InvalidArgument, NotFound
from penstock.objects import ObjectStore
from penstock.rpc.caller import caller
from penstock.rpc.paging import decode_token, encode_token, page_size
from penstock.rpc.request_ids import request_id, request_key
from penstock.rpc.watch import Signals, watch
from penstock.store import Cause, current_cause, now
from services.dataset import convert
from services.dataset.commands.commit_draft import commit_draft, delete_draft
from services.dataset.commands.create_dataset import create_dataset
from services.dataset.commands.edit_records import EditRecords
from services.dataset.commands.import_file import Imports
from services.dataset.model import Dataset, Edit, Origin
from services.dataset.own_draft import draft_id, draft_name
from services.dataset.partitions.writer import Manifests
from services.dataset.query.browser import Browser
from services.dataset.query.diff import Differ
from services.dataset.query.records import cut_to_size, get_record, list_revisions
from services.dataset.query.view import Views
from services.dataset.reconcile import Reconciler
from services.dataset.repository import Repository

Context = Any


@dataclass(frozen=True)
class DatasetServicer(DatasetServiceServicer):
    """Each rpc in a few lines; what it does is in commands and query."""

    repository: Repository
    objects: ObjectStore
    signals: Signals
    commits: Reconciler
    edit_records: EditRecords
    imports: Imports
    views: Views
    browser: Browser
    differ: Differ
    manifests: Manifests

    async def CreateDataset(self, request: pb.CreateDatasetRequest, context: Context) -> pb.Dataset:
        project = names.parse(request.parent, kind="project", field="parent").id
        id = names.check_id(request.dataset_id, "dataset_id")
        asked = request.dataset
        dataset = Dataset(project, id, now(), now(), asked.description, asked.key_field, asked.label_field)
        return convert.dataset_message(
            await create_dataset(self.repository, dataset, request_key(request, dataset.project))
        )

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.Dataset:
        return convert.dataset_message(await self.repository.datasets.get(_name(request.name, "dataset")))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        project = names.parse(request.parent, kind="project", field="parent").id
        after = decode_token(request.page_token, request)
        page = await self.repository.list_datasets(project, page_size(request.page_size), after)
        datasets = [convert.dataset_message(stored) for stored in page]
        return pb.ListDatasetsResponse(datasets=datasets, next_page_token=encode_token(page.next, request))

    async def CreateImport(self, request: pb.CreateImportRequest, context: Context) -> pb.Import:
        dataset = _name(request.parent, "dataset", "parent")
        message = getattr(request, "import")
        message.draft = draft_id(message.draft)
        id = names.new_id(f"{dataset}\n{caller().actor}", request_id(request))
        spec = convert.import_of(message, dataset, id, caller().actor, now(), current_cause.get() or Cause())
        return convert.import_message(await self.imports.create(spec, request_id(request)))

    async def WriteImport(self, request: pb.WriteImportRequest, context: Context) -> pb.Import:
        name = _name(request.name, "import")
        return convert.import_message(await self.imports.write(name, request.offset, request.data))

    async def GetImport(self, request: pb.GetImportRequest, context: Context) -> pb.Import:
        return convert.import_message(await self.repository.imports.get(_name(request.name, "import")))

    async def CancelImport(self, request: pb.CancelImportRequest, context: Context) -> pb.Import:
        return convert.import_message(await self.imports.cancel(_name(request.name, "import")))

    async def WatchImport(self, request: pb.WatchImportRequest, context: Context) -> AsyncIterator[pb.Import]:
        name = _name(request.name, "import")
        changes = watch(
            lambda: self.repository.imports.get(name),
            version=lambda stored: stored.version,
            done=lambda stored: stored.value.done,
            signals=self.signals,
            key=name,
        )
        async for stored in changes:
            yield convert.import_message(stored)

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Context) -> pb.ListRecordsResponse:
        dataset = _name(request.parent, "dataset", "parent")
        request.draft = draft_id(request.draft)  # in the request, so that a page token is of this very draft
        page = await self.browser.page(
            dataset,
            version=request.version,
            draft=request.draft,
            filter=request.filter,
            order_by=request.order_by,
            limit=page_size(request.page_size),
            token=decode_token(request.page_token, request),
        )
        records = [convert.record_message(page.dataset, found) for found in page.records]
        return pb.ListRecordsResponse(records=records, next_page_token=encode_token(page.next, request))

    async def GetRecord(self, request: pb.GetRecordRequest, context: Context) -> pb.Record:
        name = names.parse(request.name, kind="record")
        view = await self.views.open(name.parent, request.version, draft_id(request.draft), keys=[name.id])
        return convert.record_message(view.dataset, await get_record(self.repository, view, name.id))

    async def ListRecordRevisions(
        self, request: pb.ListRecordRevisionsRequest, context: Context
    ) -> pb.ListRecordRevisionsResponse:
        name = names.parse(request.name, kind="record")
        view = await self.views.open(name.parent, 0, "")
        below = decode_token(request.page_token, request)
        found = await list_revisions(self.repository, view, name.id)
        some = [each for each in found if below is None or each.revision < below]
        page, more = cut_to_size(some, page_size(request.page_size))
        return pb.ListRecordRevisionsResponse(
            records=[convert.record_message(view.dataset, each) for each in page],
            next_page_token=encode_token(page[-1].revision if more else None, request),
        )

    async def EditRecords(self, request: pb.EditRecordsRequest, context: Context) -> pb.Draft:
        name = draft_name(request.name)
        names.check_id(names.parse(name).id, "name")
        who = caller()
        origin = Origin.PIPELINE if who.on_behalf_of else Origin.PERSON
        edit = Edit(who.actor, now(), request.why[:4096], origin.value, name)
        edits = [convert.record_edit(message, index) for index, message in enumerate(request.edits)]
        return convert.draft_message(await self.edit_records(name, edits, edit, request_key(request, name)))

    async def GetDraft(self, request: pb.GetDraftRequest, context: Context) -> pb.Draft:
        return convert.draft_message(await self.repository.drafts.get(draft_name(request.name)))

    async def ListDrafts(self, request: pb.ListDraftsRequest, context: Context) -> pb.ListDraftsResponse:
        dataset = _name(request.parent, "dataset", "parent")
        await self.repository.datasets.get(dataset)
        after = decode_token(request.page_token, request)
        page = await self.repository.list_drafts(dataset, page_size(request.page_size), after)
        drafts = [convert.draft_message(stored) for stored in page]
        return pb.ListDraftsResponse(drafts=drafts, next_page_token=encode_token(page.next, request))

    async def CommitDraft(self, request: pb.CommitDraftRequest, context: Context) -> pb.Draft:
        name, who = draft_name(request.name), caller().actor
        wake, again = self.commits.wake, request_key(request, name)
        stored = await commit_draft(self.repository, name, request.message, who, again, wake, request.etag)
        self.signals.notify(name)
        return convert.draft_message(stored)

    async def DeleteDraft(self, request: pb.DeleteDraftRequest, context: Context) -> Empty:
        name = draft_name(request.name)
        await delete_draft(self.repository, name, request.etag)
        self.signals.notify(name)
        return Empty()

    async def WatchDraft(self, request: pb.WatchDraftRequest, context: Context) -> AsyncIterator[pb.Draft]:
        name = draft_name(request.name)
        changes = watch(
            lambda: self.repository.drafts.get(name),
            version=lambda stored: stored.version,
            done=lambda stored: stored.value.settled,
            signals=self.signals,
            key=name,
        )
        async for stored in changes:
            yield convert.draft_message(stored)

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.Version:
        name = names.parse(request.name, kind="dataset_version")
        dataset = await self.repository.datasets.get(name.parent)
        return convert.version_message((await self.repository.version(dataset.value, name.number)).value)

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Context) -> pb.ListVersionsResponse:
        dataset = (await self.repository.datasets.get(_name(request.parent, "dataset", "parent"))).value
        limit = page_size(request.page_size)
        below = decode_token(request.page_token, request) or dataset.head + 1
        found = [stored.value for stored in await self.repository.list_versions(dataset, below, limit)]
        last = found[-1].number if found else 1
        return pb.ListVersionsResponse(
            versions=[convert.version_message(version) for version in found],
            next_page_token=encode_token(last if last > 1 else None, request),
        )

    async def DiffVersions(self, request: pb.DiffVersionsRequest, context: Context) -> pb.DiffVersionsResponse:
        dataset = _name(request.parent, "dataset", "parent")
        if request.draft and (request.from_version or request.to_version):
            raise InvalidArgument("Compare two versions, or a draft with its base, not both.", field="draft")
        request.draft = draft_id(request.draft)
        token = decode_token(request.page_token, request)
        snapshot, after = token or (None, None)
        view = await self.views.open(dataset, 0, request.draft, snapshot)
        limit = page_size(request.page_size)
        if request.draft:
            counts, found = await self.differ.draft(view, after, limit)
        else:
            to = request.to_version or view.version
            counts, found = await self.differ.versions(view.dataset, request.from_version, to, after, limit)
        page, more = convert.cut_changes(found, limit)
        response = pb.DiffVersionsResponse(
            changes=[convert.change_message(difference) for difference in page],
            next_page_token=encode_token([view.snapshot, page[-1].key] if more else None, request),
        )
        if token is None:
            response.added, response.changed, response.removed = counts.added, counts.changed, counts.removed
        return response

    async def GetManifest(self, request: pb.GetManifestRequest, context: Context) -> pb.Manifest:
        name = _name(request.name, "dataset_version")
        found = await self.manifests.of_version(name, wait=request.wait)
        if found is None:
            raise FailedPrecondition("The partitions are still being written: ask again with `wait`.", field="wait")
        return convert.manifest_message(name, *found)

    async def ReadPartition(
        self, request: pb.ReadPartitionRequest, context: Context
    ) -> AsyncIterator[pb.ReadPartitionResponse]:
        name = _name(request.name, "dataset_version")
        found = await self.manifests.of_version(name, wait=True)
        assert found is not None
        part = next((part for part in found[1].files if part.path == request.path), None)
        if part is None:
            raise NotFound(f"{name} has no partition '{request.path[:100]}'.", field="path")
        chunks = self.objects.read(part.digest)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield pb.ReadPartitionResponse(data=chunk)


def _name(text: str, kind: str, field: str = "name") -> str:
    return str(names.parse(text, kind=kind, field=field))
