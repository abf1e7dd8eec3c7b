"""Put, patch and delete records in a draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from penstock import names
from penstock.errors import InvalidArgument, NotFound
from penstock.store import Stored
from services.dataset.drafts import DraftLog, Look
from services.dataset.layers import Batch
from services.dataset.model import Dataset, Draft, Edit
from services.dataset.repository import Repository
from services.dataset.values import BadValue, Cleaner, Record, decode, key_text

MAX_EDITS = 500
MAX_BATCH_BYTES = 12 * 1024 * 1024  # a batch is one document


class Action(Enum):
    """What is done to a record."""

    PUT = "put"
    PATCH = "patch"
    DELETE = "delete"


@dataclass(frozen=True)
class RecordEdit:
    """One edit: the whole record, or the fields to set and those to remove."""

    key: str
    action: Action
    data: Record
    unset: tuple[str, ...] = ()


@dataclass(frozen=True)
class EditRecords:
    """The use case."""

    repository: Repository
    drafts: DraftLog

    async def __call__(self, name: str, edits: Sequence[RecordEdit], edit: Edit, request: str = "") -> Stored[Draft]:
        """Apply all of `edits` or none. Raises InvalidArgument naming the edit, NotFound, FailedPrecondition."""
        if not 1 <= len(edits) <= MAX_EDITS:
            raise InvalidArgument(f"Send 1 to {MAX_EDITS} edits at a time, not {len(edits)}.", field="edits")
        dataset = await self.repository.datasets.get(names.parse(name, kind="draft").parent)
        _check(dataset.value, edits)

        async def make(draft: Draft, look: Look) -> Batch:
            overlay = await look({each.key for each in edits})
            wanted = {each.key for each in edits if each.action is not Action.PUT and each.key not in overlay}
            stored = await self.repository.at(draft.dataset, draft.base, sorted(wanted))
            texts = {key: revision.text for key, revision in stored.items()}
            texts |= {e.key: t for e in edits if e.key in overlay and (t := overlay[e.key].text) is not None}
            return Batch(edit, _changes(dataset.value, edits, texts))

        return await self.drafts.append(name, edit.author, make, request)


def _check(dataset: Dataset, edits: Sequence[RecordEdit]) -> None:
    for index, each in enumerate(edits):
        field = f"edits[{index}]"
        names.check_key(each.key, f"{field}.key")
        key_field = dataset.key_field
        if not key_field or each.action is Action.DELETE:
            continue
        found = each.data.get(key_field)
        lost = key_field in each.unset or (each.action is Action.PUT and found is None)
        if lost or (found is not None and _key(found) != each.key):
            raise InvalidArgument(
                f"The record's field '{key_field}' is its key and must be '{each.key}'.", field=f"{field}.{key_field}"
            )


def _key(value: object) -> str | None:
    try:
        return key_text(value)
    except BadValue:
        return None


def _changes(
    dataset: Dataset, edits: Sequence[RecordEdit], texts: dict[str, str]
) -> tuple[tuple[str, str | None], ...]:
    """What each edit makes of its record; `texts` are the records as they are."""
    changes: list[tuple[str, str | None]] = []
    size = 0
    for index, each in enumerate(edits):
        field = f"edits[{index}]"
        current = texts.get(each.key)
        if current is None and each.action is not Action.PUT:
            raise NotFound(f"{dataset.id} has no record '{each.key}' to {each.action.value}.", field=f"{field}.key")
        if each.action is Action.DELETE:
            texts.pop(each.key, None)
            changes.append((each.key, None))
            continue
        try:
            text = Cleaner().text(_applied(each, current))
        except BadValue as error:
            raise InvalidArgument(f"{error}.", field=f"{field}.{each.action.value}.{error.path}") from error
        texts[each.key] = text
        changes.append((each.key, text))
        size += len(text)
    if size > MAX_BATCH_BYTES:
        raise InvalidArgument(f"The edits hold {size} bytes of records: send fewer at a time.", field="edits")
    return tuple(changes)


def _applied(each: RecordEdit, current: str | None) -> Record:
    if each.action is Action.PUT or current is None:
        return each.data
    record = {**decode(current), **each.data}
    for name in each.unset:
        record.pop(name, None)
    return record
