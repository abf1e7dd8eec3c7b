"""Messages to values and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.errors import InvalidArgument
from penstock.rpc.structs import from_struct
from penstock.rpc.times import to_timestamp
from penstock.store import Cause, Stored
from services.dataset.commands.edit_records import Action, RecordEdit
from services.dataset.imports import Format, Import, ImportState
from services.dataset.model import Conflict, Dataset, Draft, DraftState, Edit, Version
from services.dataset.partitions.manifest import Manifest
from services.dataset.query.diff import Difference
from services.dataset.query.records import MAX_PAGE_BYTES
from services.dataset.query.view import Found
from services.dataset.values import check_wire, decode, to_struct

_DRAFT_STATES = {
    DraftState.OPEN: pb.Draft.OPEN,
    DraftState.FROZEN: pb.Draft.FROZEN,
    DraftState.COMMITTED: pb.Draft.COMMITTED,
    DraftState.CONFLICTED: pb.Draft.CONFLICTED,
    DraftState.FAILED: pb.Draft.FAILED,
}
_IMPORT_STATES = {
    ImportState.UPLOADING: pb.Import.UPLOADING,
    ImportState.STAGING: pb.Import.STAGING,
    ImportState.COMMITTING: pb.Import.COMMITTING,
    ImportState.SUCCEEDED: pb.Import.SUCCEEDED,
    ImportState.FAILED: pb.Import.FAILED,
    ImportState.CANCELLED: pb.Import.CANCELLED,
}
_FORMATS: Mapping[int, Format] = {
    pb.Import.JSONL: Format.JSONL,
    pb.Import.CSV: Format.CSV,
    pb.Import.PARQUET: Format.PARQUET,
}
_FORMAT_NUMBERS = {value: number for number, value in _FORMATS.items()}


def dataset_message(stored: Stored[Dataset]) -> pb.Dataset:
    """A dataset."""
    dataset = stored.value
    return pb.Dataset(
        name=dataset.name,
        description=dataset.description,
        key_field=dataset.key_field,
        label_field=dataset.label_field,
        head=dataset.head,
        record_count=dataset.records,
        create_time=to_timestamp(dataset.created),
        update_time=to_timestamp(dataset.updated),
        etag=stored.etag,
        sequence=stored.sequence,
    )


def import_of(message: pb.Import, dataset: str, id: str, author: str, created: datetime, cause: Cause) -> Import:
    """The import that a request asks for. Raises InvalidArgument."""
    if message.format not in _FORMATS:
        raise InvalidArgument("Say what the file is: JSONL, CSV or PARQUET.", field="import.format")
    if not message.key_field:
        raise InvalidArgument("Say which field of the records is their key.", field="import.key_field")
    return Import(
        dataset=dataset,
        id=id,
        author=author,
        source=message.source[:1024],
        format=_FORMATS[message.format],
        key_field=message.key_field,
        size=message.size,
        created=created,
        label_field=message.label_field,
        digest=message.digest,
        draft=message.draft,
        cause=cause,
    )


def import_message(stored: Stored[Import]) -> pb.Import:
    """An import."""
    found = stored.value
    return pb.Import(
        name=found.name,
        source=found.source,
        format=_FORMAT_NUMBERS[found.format],  # type: ignore[arg-type]
        key_field=found.key_field,
        label_field=found.label_field,
        size=found.size,
        digest=found.digest,
        draft=found.draft,
        state=_IMPORT_STATES[found.state],
        received=found.received,
        records=found.records,
        version=f"{found.dataset}/versions/{found.version}" if found.version else "",
        reason=found.reason,
        create_time=to_timestamp(found.created),
        end_time=to_timestamp(found.ended),
        author=found.author,
        missing=found.missing,
    )


def draft_message(stored: Stored[Draft]) -> pb.Draft:
    """A draft."""
    draft = stored.value
    return pb.Draft(
        name=draft.name,
        owner=draft.owner,
        base_version=draft.base,
        state=_DRAFT_STATES[draft.state],
        message=draft.message,
        change_count=draft.changes,
        conflicts=[_conflict(conflict) for conflict in draft.conflicts],
        version=f"{draft.dataset}/versions/{draft.version}" if draft.version else "",
        reason=draft.reason,
        create_time=to_timestamp(draft.created),
        update_time=to_timestamp(draft.updated),
        etag=stored.etag,
    )


def _conflict(conflict: Conflict) -> pb.Conflict:
    message = pb.Conflict(key=conflict.key, fields=conflict.fields, version=conflict.version)
    if conflict.base is not None:
        message.base.CopyFrom(to_struct(decode(conflict.base)))
    if conflict.theirs is not None:
        message.theirs.CopyFrom(to_struct(decode(conflict.theirs)))
    if conflict.mine is not None:
        message.mine.CopyFrom(to_struct(decode(conflict.mine)))
    return message


def version_message(version: Version) -> pb.Version:
    """A version."""
    return pb.Version(
        name=version.name,
        number=version.number,
        message=version.message,
        author=version.author,
        create_time=to_timestamp(version.created),
        record_count=version.records,
        added=version.added,
        changed=version.changed,
        removed=version.removed,
        draft=version.draft,
        origin=version.origin,
        manifest=version.manifest or "",
        rows_digest=version.rows_digest,
    )


def edit_message(edit: Edit) -> pb.Edit:
    """An edit."""
    return pb.Edit(
        author=edit.author, time=to_timestamp(edit.time), why=edit.why, origin=edit.origin, source=edit.source
    )


def record_message(dataset: Dataset, found: Found) -> pb.Record:
    """A record."""
    return pb.Record(
        name=names.build("record", dataset.project, dataset.id, found.key),
        key=found.key,
        data=to_struct(decode(found.text)),
        revision=found.revision,
        end_revision=found.end,
        edit=edit_message(found.edit),
    )


def change_message(difference: Difference) -> pb.Change:
    """One record of a diff."""
    kind = pb.Change.CHANGED
    if difference.before is None:
        kind = pb.Change.ADDED
    elif difference.after is None:
        kind = pb.Change.REMOVED
    message = pb.Change(key=difference.key, kind=kind, fields=difference.fields, revision=difference.revision)
    if difference.before is not None:
        message.before.CopyFrom(to_struct(decode(difference.before)))
    if difference.after is not None:
        message.after.CopyFrom(to_struct(decode(difference.after)))
    if difference.edit is not None:
        message.edit.CopyFrom(edit_message(difference.edit))
    return message


def cut_changes(found: Sequence[Difference], limit: int) -> tuple[Sequence[Difference], bool]:
    """At most `limit` differences and about 4 MiB, at least one; and whether any were left."""
    size = 0
    for index, each in enumerate(found[:limit]):
        size += len(each.before or "") + len(each.after or "")
        if size > MAX_PAGE_BYTES and index:
            return found[:index], True
    return found[:limit], len(found) > limit


def record_edit(message: pb.RecordEdit, index: int) -> RecordEdit:
    """An edit of a record. Raises InvalidArgument naming it."""
    field = f"edits[{index}]"
    which = message.WhichOneof("action")
    unset = tuple(message.unset_fields)
    if which == "put" and not unset:
        return RecordEdit(message.key, Action.PUT, _data(message, "put", field))
    if which == "delete" and message.delete and not unset:
        return RecordEdit(message.key, Action.DELETE, {})
    if which == "patch" or (which is None and unset):
        return RecordEdit(message.key, Action.PATCH, _data(message, "patch", field), unset)
    raise InvalidArgument("An edit is one of put, patch (with unset_fields) and delete: true.", field=field)


def _data(message: pb.RecordEdit, action: str, field: str) -> dict[str, object]:
    data = from_struct(message.put if action == "put" else message.patch)
    check_wire(data, f"{field}.{action}")
    return data


def manifest_message(version: str, digest: str, manifest: Manifest) -> pb.Manifest:
    """A manifest."""
    return pb.Manifest(
        version=version,
        digest=digest,
        rows_digest=manifest.rows_digest,
        records=manifest.records,
        files=[
            pb.PartitionFile(path=part.path, digest=part.digest, size=part.size, records=part.records)
            for part in manifest.files
        ],
        json_columns=manifest.json_columns,
        key_field=manifest.key_field,
        label_field=manifest.label_field,
    )
