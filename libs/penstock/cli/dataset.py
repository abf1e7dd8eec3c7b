"""`penstock dataset …`"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.common import Session, assignments, connected, enum_name, last_id, table, to_dict, versioned
from penstock.cli.files import writing
from penstock.cli.importing import import_
from penstock.cli.progress import Progress
from penstock.errors import InvalidArgument, PenstockError

if TYPE_CHECKING:
    from penstock.api.dataset.v1 import dataset_service_pb2 as pb

FIELDS_SHOWN = 8  # as columns of their own
MAX_VERSION = 10**12 - 1


@click.group()
def dataset() -> None:
    """Import, edit, commit, compare and export datasets."""


dataset.add_command(import_)


@dataset.command()
@click.argument("name")
@click.option("--key", default="", help="The field that holds the key.")
@click.option("--label", default="", help="The field that models are to predict.")
@click.option("--description", default="")
@connected
def create(session: Session, name: str, key: str, label: str, description: str) -> None:
    """Create a dataset."""
    made = session.client.dataset(name).create(key_field=key, label_field=label, description=description)
    session.show(made, f"created {made.name}")


@dataset.command("list")
@connected
def list_datasets(session: Session) -> None:
    """List the datasets of the project."""
    from penstock.api.dataset.v1 import dataset_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListDatasetsRequest(parent=session.client.project, page_size=1000)
    session.show_list(
        pages(session.client.datasets.ListDatasets, request, "datasets"),
        [
            ("NAME", lambda d: last_id(d.name)),
            ("HEAD", lambda d: d.head),
            ("RECORDS", lambda d: d.record_count),
            ("KEY", lambda d: d.key_field),
            ("LABEL", lambda d: d.label_field),
            ("UPDATED", lambda d: d.update_time.ToJsonString()),
        ],
    )


@dataset.command()
@click.argument("name")
@connected
def show(session: Session, name: str) -> None:
    """Show a dataset."""
    session.show(session.client.dataset(name).get())


@dataset.command()
@click.argument("name")
@click.argument("key")
@click.argument("fields", nargs=-1, metavar="FIELD=VALUE…")
@click.option("--unset", multiple=True, metavar="FIELD", help="Remove a field.")
@click.option("--draft", default=None, help="The draft to edit; your own by default.")
@click.option("--why", default="", help="The reason, kept with the edit.")
@connected
def patch(
    session: Session, name: str, key: str, fields: tuple[str, ...], unset: tuple[str, ...], draft: str | None, why: str
) -> None:
    """Set fields of one record in a draft. A value is JSON if it parses, else text."""
    from penstock.api.dataset.v1 import dataset_service_pb2 as pb
    from penstock.rpc.structs import to_struct

    values = assignments(fields, "fields", "FIELD")
    if not values and not unset:
        raise InvalidArgument("Give at least one FIELD=VALUE or --unset FIELD.", field="fields")
    edit = pb.RecordEdit(key=key, patch=to_struct(values), unset_fields=unset)
    changed = session.client.dataset(name).edit([edit], draft=draft, why=why)
    session.show(changed, f"patched {key} in {last_id(changed.name)} ({_changes(changed)}; commit when done)")


def _changes(draft: pb.Draft) -> str:
    return f"{draft.change_count} change{'s' * (draft.change_count != 1)}"


@dataset.command()
@click.argument("name")
@click.argument("keys", nargs=-1, required=True)
@click.option("--draft", default=None, help="The draft to edit; your own by default.")
@click.option("--why", default="", help="The reason, kept with the edit.")
@connected
def delete(session: Session, name: str, keys: tuple[str, ...], draft: str | None, why: str) -> None:
    """Remove records in a draft."""
    from penstock.api.dataset.v1 import dataset_service_pb2 as pb

    edits = [pb.RecordEdit(key=key, delete=True) for key in keys]
    changed = session.client.dataset(name).edit(edits, draft=draft, why=why)
    session.show(changed, f"removed {len(keys)} in {last_id(changed.name)} ({_changes(changed)}; commit when done)")


@dataset.command()
@click.argument("name")
@click.option("--message", "-m", required=True, help="What changed and why.")
@click.option("--draft", default=None, help="The draft to commit; your own by default.")
@connected
def commit(session: Session, name: str, message: str, draft: str | None) -> None:
    """Make a draft the next version. Exits with 1 if newer versions changed the same records, and shows them."""
    from penstock.sdk.datasets import ConflictingDraft

    progress = Progress()
    try:
        done = session.client.dataset(name).commit(
            message,
            draft=draft,
            on_update=lambda d: progress.show(f"{last_id(d.name)}: {enum_name(d, 'state').lower()}"),
        )
    except KeyboardInterrupt:
        session.note(f"\nThe commit goes on. To follow it: penstock dataset versions {name}")
        raise
    except ConflictingDraft as error:
        _show_conflicts(session, error.draft)
        raise PenstockError(error.message) from None
    finally:
        progress.done()
    session.show(done, f"committed {name}@{last_id(done.version)} ({_changes(done)})")


def _show_conflicts(session: Session, draft: pb.Draft) -> None:
    """A row for each field that both changed: what it was, what the newer version made of it, and what the draft."""
    if session.json:
        session.show(draft)
        return
    rows = []
    for conflict in to_dict(draft)["conflicts"]:
        sides = [conflict.get(side) for side in ("base", "theirs", "mine")]
        left_out = all(side is None for side in sides)  # too large to be kept in the draft
        for field in conflict["fields"] or [""]:
            cells = ["…"] * 3 if left_out else [_side(side, field) for side in sides]
            rows.append([conflict["key"], field, *cells])
    table(["KEY", "FIELD", "WAS", "IS", "YOURS"], rows)


def _side(record: dict[str, Any] | None, field: str) -> str:
    """A field of one side of a conflict; all fields where the record itself came or went."""
    import json

    if record is None:
        return "(no record)"
    value = record.get(field, "") if field else record
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataset.command()
@click.argument("name")
@connected
def versions(session: Session, name: str) -> None:
    """List the versions of a dataset, newest first."""
    from penstock.api.dataset.v1 import dataset_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListVersionsRequest(parent=session.client.name("dataset", name), page_size=1000)
    session.show_list(
        pages(session.client.datasets.ListVersions, request, "versions"),
        [
            ("VERSION", lambda v: v.number),
            ("RECORDS", lambda v: v.record_count),
            ("ADDED", lambda v: v.added),
            ("CHANGED", lambda v: v.changed),
            ("REMOVED", lambda v: v.removed),
            ("AUTHOR", lambda v: v.author),
            ("TIME", lambda v: v.create_time.ToJsonString()),
            ("MESSAGE", lambda v: v.message),
        ],
    )


@dataset.command()
@click.argument("name", metavar="NAME[@N]")
@click.option("--filter", "filter_", default="", help="AIP-160, such as 'label = \"7\" AND price > 8'.")
@click.option("--draft", default="", help="Read a draft ('-': your own) instead of a version.")
@click.option("--limit", default=50, type=click.IntRange(1), show_default=True, help="At most this many.")
@connected
def records(session: Session, name: str, filter_: str, draft: str, limit: int) -> None:
    """Print records by key."""
    base, number = versioned(name, "name")
    found = session.client.dataset(base).records(version=number or 0, draft=draft, filter=filter_, limit=limit)
    rows = list(found)
    session.show_list(rows, [("KEY", lambda r: r.key), ("REVISION", lambda r: r.revision), *_columns(rows)])


def _columns(records: Sequence[Any]) -> list[tuple[str, Callable[[Any], Any]]]:
    """A column for each field, if there are few; else all data in one."""
    names = sorted({name for record in records for name in record.data.fields})
    if len(names) > FIELDS_SHOWN:
        return [("DATA", _data)]
    return [(name, functools.partial(_shown, name)) for name in names]


def _shown(name: str, record: Any) -> str:
    import json

    value: Any = to_dict(record)["data"].get(name, "")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data(record: Any) -> str:
    import json

    return json.dumps(to_dict(record).get("data", {}), ensure_ascii=False, sort_keys=True)


@dataset.command()
@click.argument("name")
@click.argument("old", type=click.IntRange(0, MAX_VERSION), metavar="A")
@click.argument("new", type=click.IntRange(0, MAX_VERSION), metavar="B")
@connected
def diff(session: Session, name: str, old: int, new: int) -> None:
    """What changed from version A to version B."""
    session.show_list(
        session.client.dataset(name).diff(old, new),
        [
            ("KEY", lambda c: c.key),
            ("CHANGE", lambda c: enum_name(c, "kind").lower()),
            ("FIELDS", lambda c: ", ".join(c.fields)),
            ("AUTHOR", lambda c: c.edit.author),
            ("WHY", lambda c: c.edit.why),
        ],
    )


@dataset.command()
@click.argument("name")
@click.argument("key")
@connected
def history(session: Session, name: str, key: str) -> None:
    """Every revision of one record, newest first."""
    from penstock.api.dataset.v1 import dataset_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListRecordRevisionsRequest(name=session.client.name("record", name, key), page_size=1000)
    session.show_list(
        pages(session.client.datasets.ListRecordRevisions, request, "records"),
        [
            ("FROM", lambda r: r.revision),
            ("UNTIL", lambda r: r.end_revision or ""),
            ("AUTHOR", lambda r: r.edit.author),
            ("WHY", lambda r: r.edit.why),
            ("DATA", _data),
        ],
    )


@dataset.command()
@click.argument("name", metavar="NAME@N")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder.")
@connected
def export(session: Session, name: str, target: Path) -> None:
    """Download a version as Parquet, with its manifest."""
    base, number = versioned(name, "name")
    data = session.client.dataset(base)
    progress = Progress()
    with writing(target):
        manifest, files = data.export(
            number or data.get().head, target, lambda n, of: progress.show(f"{n} of {of} files", n / of)
        )
    progress.done()
    if sum(f.records for f in manifest.files) != manifest.records:
        raise PenstockError("The manifest does not add up; tell whoever runs this platform.")
    session.show(manifest, f"wrote {manifest.records:,} records in {len(files)} files to {target}")
