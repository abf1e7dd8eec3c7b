"""Datasets from Python: import, edit, commit, read, compare and export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import FailedPrecondition, InvalidArgument, NotFound
from penstock.objects.paths import safe_join
from penstock.rpc.structs import to_struct
from penstock.sdk.following import wait

if TYPE_CHECKING:
    from penstock.sdk.client import Client

CHUNK = 4 * 1024 * 1024
FORMATS = {".jsonl": "JSONL", ".ndjson": "JSONL", ".csv": "CSV", ".parquet": "PARQUET", ".pq": "PARQUET"}
BATCH = 500  # edits in one call


class ConflictingDraft(FailedPrecondition):
    """A draft that edits what newer versions edited too: `draft.conflicts` lists the records, with all three sides."""

    def __init__(self, draft: pb.Draft) -> None:
        keys = ", ".join(conflict.key for conflict in list(draft.conflicts)[:5])
        super().__init__(
            f"{len(draft.conflicts)} records were changed by newer versions too (such as {keys}): "
            "edit them in the draft again, and commit again."
        )
        self.draft = draft


class DatasetClient:
    """One dataset of the client's project."""

    def __init__(self, client: Client, dataset_id: str) -> None:
        self._client = client
        self._api = client.datasets
        self.name = client.name("dataset", dataset_id)
        self.id = names.check_id(names.parse(self.name).id, "dataset")

    def create(self, *, key_field: str = "", label_field: str = "", description: str = "") -> pb.Dataset:
        """Create the dataset, empty."""
        dataset = pb.Dataset(key_field=key_field, label_field=label_field, description=description)
        request = pb.CreateDatasetRequest(parent=self._client.project, dataset_id=self.id, dataset=dataset)
        return self._api.CreateDataset(request)

    def get(self) -> pb.Dataset:
        """Read the dataset; raises NotFound."""
        return self._api.GetDataset(pb.GetDatasetRequest(name=self.name))

    def version_name(self, number: int | None = None) -> str:
        """The name of a version; of the head without a number."""
        head = number if number is not None else self.get().head
        if head == 0:
            raise FailedPrecondition(f"Dataset {self.id} has no version yet: import something or commit a draft.")
        return self._client.name("dataset_version", self.id, head)

    def import_file(
        self,
        path: str | Path,
        *,
        key: str,
        label: str = "",
        draft: str = "",
        request_id: str = "",
        on_update: Callable[[pb.Import], None] | None = None,
    ) -> pb.Import:
        """Import a JSONL, CSV or Parquet file by key; wait until it is committed (or staged in `draft`; `-`: yours).

        The same file under the same `request_id` goes on where it was cut off; without one it is a new import.
        """
        name = self.start_import(path, key=key, label=label, draft=draft, request_id=request_id, on_update=on_update)
        return wait(lambda: self._api.WatchImport(pb.WatchImportRequest(name=name)), on_update)

    def start_import(
        self,
        path: str | Path,
        *,
        key: str,
        label: str = "",
        draft: str = "",
        request_id: str = "",
        on_update: Callable[[pb.Import], None] | None = None,
    ) -> str:
        """Send the file and answer the name of the import, which goes on by itself."""
        file = Path(path)
        format_name = file_format(file)
        digest = "sha256:" + _sha256(file)
        spec = pb.Import(
            source=file.name, format=pb.Import.Format.Value(format_name), key_field=key, label_field=label,
            size=file.stat().st_size, digest=digest, draft=draft,
        )  # fmt: skip
        request = pb.CreateImportRequest(parent=self.name, request_id=request_id, **{"import": spec})
        state = self._api.CreateImport(request)
        with file.open("rb") as source:
            while state.state == pb.Import.UPLOADING and state.received < state.size:
                source.seek(state.received)
                data = source.read(CHUNK)
                if not data:
                    raise FailedPrecondition(f"{file} became shorter while it was sent: import it again.")
                state = self._api.WriteImport(pb.WriteImportRequest(name=state.name, offset=state.received, data=data))
                if on_update:
                    on_update(state)
        return state.name

    def edit(self, edits: Iterable[pb.RecordEdit], *, draft: str | None = None, why: str = "") -> pb.Draft:
        """Put, patch or delete records in a draft (the caller's own by default); answers the draft, with its name."""
        name = self.draft_name(draft)
        result: pb.Draft | None = None
        batch: list[pb.RecordEdit] = []
        for one in edits:
            batch.append(one)
            if len(batch) == BATCH:
                result = self._api.EditRecords(pb.EditRecordsRequest(name=name, edits=batch, why=why))
                batch = []
        if batch or result is None:
            result = self._api.EditRecords(pb.EditRecordsRequest(name=name, edits=batch, why=why))
        return result

    def patch(self, key: str, fields: Mapping[str, Any], *, draft: str | None = None, why: str = "") -> pb.Draft:
        """Set fields of one record in a draft."""
        return self.edit([pb.RecordEdit(key=key, patch=to_struct(fields))], draft=draft, why=why)

    def draft_name(self, draft: str | None) -> str:
        """The name of a draft by its id; without one (or by `-`) the caller's own, which the service names."""
        own = not draft or draft == names.OWN_DRAFT
        return self._client.name("draft", self.id, names.OWN_DRAFT if own else names.check_id(str(draft), "draft"))

    def commit(
        self, message: str, *, draft: str | None = None, on_update: Callable[[pb.Draft], None] | None = None
    ) -> pb.Draft:
        """Commit a draft and wait for its version; raises ConflictingDraft, which has the conflicts."""
        name = self.draft_name(draft)
        try:
            name = self._api.CommitDraft(pb.CommitDraftRequest(name=name, message=message)).name
        except NotFound:
            which = "draft of yours" if name.endswith(f"/{names.OWN_DRAFT}") else f"draft {draft}"
            raise NotFound(f"There is no {which} in {self.id}: patch something first.") from None
        done: pb.Draft = wait(lambda: self._api.WatchDraft(pb.WatchDraftRequest(name=name)), on_update)
        if done.state == pb.Draft.CONFLICTED:
            raise ConflictingDraft(done)
        if done.state != pb.Draft.COMMITTED:
            raise FailedPrecondition(f"The draft was not committed: {done.reason}")
        return done

    def records(
        self, *, version: int = 0, draft: str = "", filter: str = "", limit: int | None = None
    ) -> Iterator[pb.Record]:
        """Records by key, page after page: of a version (0: the head), or of a draft (`-`: your own)."""
        token, left = "", limit
        while left is None or left > 0:
            size = 1000 if left is None else min(left, 1000)
            page = self._api.ListRecords(
                pb.ListRecordsRequest(
                    parent=self.name, version=version, draft=draft, filter=filter, page_size=size, page_token=token
                )
            )
            yield from page.records
            token = page.next_page_token
            left = None if left is None else left - len(page.records)
            if not token:
                return

    def diff(self, old: int, new: int) -> Iterator[pb.Change]:
        """What changed from version `old` to version `new`, by key."""
        token = ""
        while True:
            page = self._api.DiffVersions(
                pb.DiffVersionsRequest(
                    parent=self.name, from_version=old, to_version=new, page_size=1000, page_token=token
                )
            )
            yield from page.changes
            token = page.next_page_token
            if not token:
                return

    def export(
        self, version: int, folder: str | Path, on_update: Callable[[int, int], None] | None = None
    ) -> tuple[pb.Manifest, list[Path]]:
        """Download a version's Parquet partitions and `manifest.json`; digests are checked. Answers both.

        `input.json` beside them is the one that a job gets: the folder can stand in for a job's input.
        """
        name = self._client.name("dataset_version", self.id, version)
        manifest = self._api.GetManifest(pb.GetManifestRequest(name=name, wait=True))
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        written = []
        for number, file in enumerate(manifest.files, 1):
            path = safe_join(target, file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            chunks = self._api.ReadPartition(pb.ReadPartitionRequest(name=name, path=file.path))
            save_stream(path, (c.data for c in chunks), file.digest)
            written.append(path)
            if on_update:
                on_update(number, len(manifest.files))
        (target / "manifest.json").write_text(json_format.MessageToJson(manifest))
        (target / "input.json").write_text(json.dumps(input_card(manifest)))
        return manifest, written


def input_card(manifest: pb.Manifest) -> dict[str, Any]:
    """What `input.json` says of a dataset version to the code of a job."""
    return {
        "dataset": names.parse(manifest.version, kind="dataset_version").parent,
        "version": manifest.version,
        "manifest": manifest.digest,
        "key": manifest.key_field,
        "label": manifest.label_field,
        "json_columns": list(manifest.json_columns),
        "rows": manifest.records,
    }


def file_format(file: Path) -> str:
    """The format of a file to import, by its suffix; raises InvalidArgument where there is nothing to import."""
    format_name = FORMATS.get(file.suffix.lower())
    if format_name is None:
        raise InvalidArgument(f"'{file.name}' is none of {', '.join(sorted(FORMATS))}.", field="from")
    if not file.is_file():
        raise InvalidArgument(f"There is no file {file}.", field="from")
    if not file.stat().st_size:
        raise InvalidArgument(f"{file} is empty: there is nothing to import.", field="from")
    return format_name


def save_stream(path: Path, chunks: Iterable[bytes], digest: str) -> None:
    """Write a download beside its target, check its digest, and move it into place."""
    sha = hashlib.sha256()
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("wb") as out:
            for data in chunks:
                sha.update(data)
                out.write(data)
        if digest and f"sha256:{sha.hexdigest()}" != digest:
            raise FailedPrecondition(f"{path.name} arrived damaged: download it again.")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
