"""`penstock train` and `penstock runs …`"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.common import Session, assignments, connected, describe, enum_name, last_id, short, to_dict, versioned
from penstock.cli.progress import follow_work
from penstock.errors import InvalidArgument, PenstockError
from penstock.sdk.following import follow as going_on

if TYPE_CHECKING:
    from penstock.api.training.v1 import training_service_pb2 as pb

MOST = 2**31 - 1  # of what is counted here


@click.command()
@click.argument("dataset", metavar="DATASET[@N]")
@click.option("--algorithm", default="", help="A built-in algorithm.")
@click.option("--code", default="", metavar="URL|DIR", help="Your code: a git URL (#ref after it) or a folder.")
@click.option("--command", "command", default="", metavar="CMD", help="What to run in the code's folder.")
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="K=V", help="A parameter; JSON or text.")
@click.option("--model", default="", help="The model of which a version is made (the dataset's name by default).")
@click.option("--cpu", default=0.0, type=click.FloatRange(0), help="Cores.")
@click.option("--memory", default=0, type=click.IntRange(0, MOST), help="MiB.")
@click.option("--timeout", default=0, type=click.IntRange(0, MOST), help="Seconds that an attempt may take.")
@click.option("--request-id", default="", help="The same id again answers the same run.")
@click.option("--wait", is_flag=True, help="Follow the run to its end.")
@connected
def train(
    session: Session,
    dataset: str,
    algorithm: str,
    code: str,
    command: str,
    parameters: tuple[str, ...],
    model: str,
    cpu: float,
    memory: int,
    timeout: int,
    request_id: str,
    wait: bool,
) -> None:
    """Train on a dataset version (the newest without @N)."""
    from google.protobuf.duration_pb2 import Duration

    from penstock.api.training.v1 import training_service_pb2 as pb
    from penstock.rpc.structs import to_struct
    from penstock.sdk.code import code_source
    from penstock.sdk.documents import parse_command

    if bool(algorithm) == bool(code):
        raise InvalidArgument("Give either --algorithm or --code.", field="code")
    if code and not command:
        raise InvalidArgument("--code needs --command, what to run in it.", field="command")
    words = parse_command(command)
    base, number = versioned(dataset, "dataset")
    data = session.client.dataset(base)
    run = pb.Run(
        dataset_version=data.version_name(number),
        code=pb.Code(algorithm=algorithm) if algorithm else code_source(session.client, code),
        command=words,
        parameters=to_struct(assignments(parameters, "parameters")),
        model=model or data.id,
        resources=pb.Resources(
            cpu=cpu, memory=memory * 1024 * 1024, timeout=Duration(seconds=timeout) if timeout else None
        ),
    )
    made = session.client.training.CreateRun(
        pb.CreateRunRequest(parent=session.client.project, run=run, request_id=request_id)
    )
    if not wait:
        session.show(made, f"queued {last_id(made.name)}; follow it: penstock runs logs {last_id(made.name)} --follow")
        return
    finish(session, _follow(session, made.name))


def _follow(session: Session, name: str) -> pb.Run:
    from penstock.api.training.v1 import training_service_pb2 as pb

    def line(run: pb.Run) -> str:
        metrics = "  ".join(f"{k}={v:.4g}" for k, v in sorted(run.metrics.items())[:4])
        return f"{last_id(run.name)}: {enum_name(run, 'state').lower()} {metrics}".rstrip()

    return follow_work(
        lambda: session.client.training.WatchRun(pb.WatchRunRequest(name=name)),
        line,
        f"penstock runs show {last_id(name)}",
    )


def finish(session: Session, run: pb.Run) -> None:
    """Print a run that ended; raises PenstockError (exit code 1) if it did not succeed."""
    state = enum_name(run, "state")
    if state == "SUCCEEDED":
        made = f", made {short(run.model_version)}" if run.model_version else ""
        session.show(run, f"{last_id(run.name)} succeeded{made}")
        return
    if session.json:
        session.show(run)
    raise PenstockError(f"Run {last_id(run.name)} {state.lower()}: {run.reason}")


@click.group()
def runs() -> None:
    """Look at training runs."""


@runs.command("list")
@click.option("--limit", default=50, type=click.IntRange(1), show_default=True)
@connected
def list_runs(session: Session, limit: int) -> None:
    """List runs, newest first."""
    from penstock.api.training.v1 import training_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListRunsRequest(parent=session.client.project, page_size=min(limit, 1000))
    session.show_list(
        pages(session.client.training.ListRuns, request, "runs", limit),
        [
            ("RUN", lambda r: last_id(r.name)),
            ("STATE", lambda r: enum_name(r, "state").lower()),
            ("DATASET", lambda r: short(r.dataset_version)),
            ("CODE", lambda r: r.code.algorithm or r.code.git.url or r.code.archive[:19]),
            ("MODEL", lambda r: short(r.model_version)),
            ("METRICS", lambda r: " ".join(f"{k}={v:.4g}" for k, v in sorted(r.metrics.items())[:3])),
            ("CREATED", lambda r: r.create_time.ToJsonString()),
        ],
    )


@runs.command()
@click.argument("run")
@connected
def show(session: Session, run: str) -> None:
    """Show a run."""
    from penstock.api.training.v1 import training_service_pb2 as pb

    found = session.client.training.GetRun(pb.GetRunRequest(name=session.client.name("run", run)))
    document = to_dict(found)
    environment = document.get("environment", {})
    if environment.get("packages"):
        environment["packages"] = f"{len(environment['packages'])} (all with --output json)"
    session.show(found, describe(document))


@runs.command()
@click.argument("run")
@click.option("--follow", "-f", is_flag=True, help="Until the run ends.")
@click.option("--tail", default=0, type=click.IntRange(0, MOST), help="Only the last lines.")
@click.option("--attempt", default=0, type=click.IntRange(0, MOST), help="The current one by default.")
@connected
def logs(session: Session, run: str, follow: bool, tail: int, attempt: int) -> None:
    """Print a run's log."""
    from penstock.api.training.v1 import training_service_pb2 as pb

    request = pb.ReadLogRequest(name=session.client.name("run", run), follow=follow, tail=tail, attempt=attempt)
    collected: list[bytes] = []
    part: pb.ReadLogResponse
    try:
        for part in going_on(lambda: session.client.training.ReadLog(request), is_there=session.is_there):
            # From there, should it break.
            request.attempt, request.offset, request.tail = part.attempt, part.offset, 0
            if session.json:
                collected.append(part.data)
            else:
                os.write(sys.stdout.fileno(), part.data)
    except KeyboardInterrupt:
        if follow:
            session.note(f"\nThe run goes on. To stop it: penstock runs cancel {last_id(request.name)}")
        raise
    if session.json:
        session.show_json({"log": b"".join(collected).decode("utf-8", "replace")})


@runs.command()
@click.argument("run")
@click.option("--metric", default="", help="Only this one.")
@connected
def metrics(session: Session, run: str, metric: str) -> None:
    """Print a run's metrics in the order of their reporting."""
    from penstock.api.training.v1 import training_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListMetricsRequest(name=session.client.name("run", run), metric=metric, page_size=1000)
    columns: list[tuple[str, Any]] = [
        ("METRIC", lambda m: m.name),
        ("STEP", lambda m: m.step),
        ("VALUE", lambda m: m.value),
        ("TIME", lambda m: m.time.ToJsonString()),
    ]
    session.show_list(pages(session.client.training.ListMetrics, request, "metrics"), columns)


@runs.command()
@click.argument("run")
@connected
def cancel(session: Session, run: str) -> None:
    """Cancel a run; what it has written so far is kept."""
    from penstock.api.training.v1 import training_service_pb2 as pb

    changed = session.client.training.CancelRun(pb.CancelRunRequest(name=session.client.name("run", run)))
    session.show(changed, f"{run}: {enum_name(changed, 'state').lower()}")
