"""`penstock dataset import`"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock import names
from penstock.cli.common import Session, connected, enum_name, last_id
from penstock.cli.progress import Progress
from penstock.errors import FieldViolation, InvalidArgument, NotFound, PenstockError

if TYPE_CHECKING:
    from penstock.api.dataset.v1 import dataset_service_pb2 as pb

# The fields of the API that the options of the command become.
_OPTIONS = {
    "import.key_field": "key",
    "import.label_field": "label",
    "import.draft": "draft",
    "import.size": "from",
    "import.source": "from",
}


@click.command("import")
@click.argument("name")
@click.option(
    "--from", "source", required=True, type=click.Path(path_type=Path), help="A .jsonl, .csv or .parquet file."
)
@click.option("--key", required=True, help="The field that holds each record's key.")
@click.option("--label", default="", help="The field that models are to predict.")
@click.option("--draft", default="", help="Import into this draft ('-': your own) instead of committing a version.")
@click.option("--request-id", default="", help="The same id resumes an import that was cut off.")
@connected
def import_(session: Session, name: str, source: Path, key: str, label: str, draft: str, request_id: str) -> None:
    """Import a file: upsert by key, and commit a version by itself. The dataset is created if it is not there."""
    from penstock.sdk.datasets import file_format

    file_format(source)
    if draft and draft != names.OWN_DRAFT:
        names.check_id(draft, "draft")
    data = session.client.dataset(name)
    try:
        data.get()
    except NotFound:
        data.create()  # its key and label come with the first version: a file that fails must not settle them
    request_id = request_id or str(uuid.uuid4())
    progress = Progress()

    def update(state: pb.Import) -> None:
        if state.received < state.size:
            progress.show(
                f"{source.name}: {state.received:,} of {state.size:,} bytes", state.received / (state.size or 1)
            )
        else:
            progress.show(f"{source.name}: {enum_name(state, 'state').lower()}, {state.records:,} records")

    try:
        done = data.import_file(source, key=key, label=label, draft=draft, request_id=request_id, on_update=update)
    except KeyboardInterrupt:
        session.note(
            f"\nInterrupted. What has arrived whole is committed: penstock dataset versions {name}\n"
            f"The same command with --request-id {request_id} sends the rest of what has not."
        )
        raise
    except PenstockError as error:
        error.violations = tuple(
            FieldViolation(_OPTIONS.get(violation.field, violation.field), violation.description)
            for violation in error.violations
        )
        raise
    finally:
        progress.done()
    if enum_name(done, "state") != "SUCCEEDED":
        # Only the file can be at fault here: what the platform could not do is raised as an error of its own.
        reason = done.reason or f"the import was {enum_name(done, 'state').lower()}."
        raise InvalidArgument(f"{source.name}: {reason}")
    where = f"draft {done.draft}" if draft else f"{name}@{last_id(done.version)}"
    session.show(done, f"imported {done.records:,} records into {where}")
