"""`penstock model …`"""

from __future__ import annotations

from pathlib import Path

import click

from penstock.cli.common import Session, connected, last_id, model_version, short, versioned
from penstock.cli.evaluate import evaluate
from penstock.cli.files import writing


@click.group()
def model() -> None:
    """List, show and download models."""


model.add_command(evaluate)


@model.command("list")
@connected
def list_models(session: Session) -> None:
    """List the models of the project."""
    from penstock.api.training.v1 import training_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListModelsRequest(parent=session.client.project, page_size=1000)
    session.show_list(
        pages(session.client.training.ListModels, request, "models"),
        [
            ("MODEL", lambda m: last_id(m.name)),
            ("LATEST", lambda m: m.latest_version),
            ("UPDATED", lambda m: m.update_time.ToJsonString()),
        ],
    )


@model.command()
@click.argument("name", metavar="MODEL[@V]")
@connected
def show(session: Session, name: str) -> None:
    """Show a model version; without @V, list the versions."""
    from penstock.api.training.v1 import training_service_pb2 as pb
    from penstock.cli.paging import pages

    base, number = versioned(name, "model")
    if number is not None:
        request = pb.GetModelVersionRequest(name=session.client.name("model_version", base, number))
        session.show(session.client.training.GetModelVersion(request))
        return
    listing = pb.ListModelVersionsRequest(parent=session.client.name("model", base), page_size=1000)
    found = list(pages(session.client.training.ListModelVersions, listing, "model_versions"))
    if not found:  # there may be no such model at all
        session.client.training.GetModel(pb.GetModelRequest(name=listing.parent))
    session.show_list(
        found,
        [
            ("VERSION", lambda v: v.number),
            ("DATASET", lambda v: short(v.dataset_version)),
            ("RUN", lambda v: last_id(v.run)),
            ("METRICS", lambda v: " ".join(f"{k}={x:.4g}" for k, x in sorted(v.metrics.items())[:3])),
            ("CREATED", lambda v: v.create_time.ToJsonString()),
        ],
    )


@model.command()
@click.argument("name", metavar="MODEL@V")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder.")
@connected
def download(session: Session, name: str, target: Path) -> None:
    """Download a model version's files; their digests are checked."""
    from penstock.api.training.v1 import training_service_pb2 as pb
    from penstock.objects.paths import safe_join
    from penstock.sdk.datasets import save_stream

    version = session.client.training.GetModelVersion(pb.GetModelVersionRequest(name=model_version(session, name)))
    for file in version.files:
        path = safe_join(target, file.path)
        chunks = session.client.training.ReadModelFile(pb.ReadModelFileRequest(name=version.name, path=file.path))
        with writing(target):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_stream(path, (c.data for c in chunks), file.digest)
    session.show(version, f"wrote {len(version.files)} files of {short(version.name)} to {target}")
