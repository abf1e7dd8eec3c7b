"""`penstock pipeline …`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from penstock.cli.common import Session, connected, enum_name, last_id
from penstock.cli.files import read_yaml
from penstock.cli.paging import pages


@click.group()
def pipeline() -> None:
    """Apply pipelines, see their runs and why they ran."""


@pipeline.command()
@click.option("--file", "-f", "file", required=True, type=click.Path(path_type=Path), help="The pipeline, in YAML.")
@connected
def apply(session: Session, file: Path) -> None:
    """Create a pipeline or change it."""
    from penstock.sdk.pipelines import apply_request, parse_pipeline

    spec = parse_pipeline(session.client, read_yaml(file))
    done = session.client.pipelines.UpdatePipeline(apply_request(spec))
    session.show(done, f"applied {last_id(done.name)} (generation {done.generation}), waits for {done.trigger.event}")


@pipeline.command("list")
@connected
def list_pipelines(session: Session) -> None:
    """List pipelines."""
    from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb

    request = pb.ListPipelinesRequest(parent=session.client.project, page_size=1000)
    session.show_list(
        pages(session.client.pipelines.ListPipelines, request, "pipelines"),
        [
            ("PIPELINE", lambda p: last_id(p.name)),
            ("ON", lambda p: p.trigger.event),
            ("STEPS", lambda p: " → ".join(s.action for s in p.steps)),
            ("GENERATION", lambda p: p.generation),
            ("PAUSED", lambda p: "yes" if p.paused else ""),
        ],
    )


@pipeline.command()
@click.argument("name")
@connected
def show(session: Session, name: str) -> None:
    """Show a pipeline."""
    from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb

    session.show(
        session.client.pipelines.GetPipeline(pb.GetPipelineRequest(name=session.client.name("pipeline", name)))
    )


@pipeline.command()
@click.argument("name")
@connected
def runs(session: Session, name: str) -> None:
    """List the runs of a pipeline, newest first."""
    from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb

    request = pb.ListPipelineRunsRequest(parent=session.client.name("pipeline", name), page_size=1000)
    found = list(pages(session.client.pipelines.ListPipelineRuns, request, "pipeline_runs"))
    _check_exists(session, request.parent, found)
    session.show_list(
        found,
        [
            ("RUN", lambda r: last_id(r.name)),
            ("STATE", lambda r: enum_name(r, "state").lower()),
            ("STEPS", lambda r: " ".join(f"{s.id}:{enum_name(s, 'state').lower()}" for s in r.steps)),
            ("CAUSES", lambda r: ", ".join(c.event_id for c in r.causes)),
            ("CREATED", lambda r: r.create_time.ToJsonString()),
            ("REASON", lambda r: r.reason),
        ],
    )


@pipeline.command()
@click.argument("name")
@connected
def why(session: Session, name: str) -> None:
    """Every event that the pipeline looked at, and what was decided; newest first."""
    from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb

    request = pb.ListDecisionsRequest(
        parent=session.client.name("pipeline", name), page_size=1000, at_least=session.client.last_writes
    )
    found = list(pages(session.client.pipelines.ListDecisions, request, "decisions"))
    _check_exists(session, request.parent, found)
    session.show_list(
        found,
        [
            ("TIME", lambda d: d.time.ToJsonString()),
            ("DECISION", lambda d: enum_name(d, "outcome").lower()),
            ("EVENT", lambda d: d.cause.type.removeprefix("dev.penstock.").removesuffix(".v1")),
            ("CAUSE", lambda d: d.cause.event_id),
            ("RUN", lambda d: last_id(d.run)),
            ("REASON", lambda d: d.reason),
        ],
    )


def _check_exists(session: Session, pipeline: str, found: list[Any]) -> None:
    """Raise NotFound if nothing was found since there is no such pipeline; what a deleted one left stays readable."""
    from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb

    if not found:
        session.client.pipelines.GetPipeline(pb.GetPipelineRequest(name=pipeline))


@pipeline.command()
@click.argument("name")
@connected
def delete(session: Session, name: str) -> None:
    """Delete a pipeline; its runs and decisions stay readable."""
    from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb

    request = pb.DeletePipelineRequest(name=session.client.name("pipeline", name))
    session.client.pipelines.DeletePipeline(request)
    session.show_gone(request.name, f"deleted {name}")


@pipeline.command()
@click.argument("name")
@click.argument("run")
@connected
def cancel(session: Session, name: str, run: str) -> None:
    """Cancel a run of a pipeline and what it does now; a deployment under way is left to end."""
    from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb

    changed = session.client.pipelines.CancelPipelineRun(
        pb.CancelPipelineRunRequest(name=session.client.name("pipeline_run", name, run))
    )
    session.show(changed, f"{run}: {enum_name(changed, 'state').lower()}")


@pipeline.command()
@click.argument("name")
@click.argument("run")
@connected
def retry(session: Session, name: str, run: str) -> None:
    """Go on with a failed run at the step that failed."""
    from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb

    changed = session.client.pipelines.RetryPipelineRun(
        pb.RetryPipelineRunRequest(name=session.client.name("pipeline_run", name, run))
    )
    session.show(changed, f"{run}: {enum_name(changed, 'state').lower()}")
