"""`penstock evaluate` and `penstock evaluations …`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.common import Session, connected, enum_name, last_id, model_version, short, table, versioned
from penstock.cli.files import writing
from penstock.cli.progress import follow_work
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb


@click.command()
@click.argument("model", metavar="MODEL[@V]")
@click.option("--on", "dataset", required=True, metavar="DATASET[@N]", help="The dataset version to evaluate on.")
@click.option("--rule", default="", help="Such as 'accuracy >= baseline - 0.005'.")
@click.option("--baseline", default="", metavar="MODEL@V|ENDPOINT", help="What to compare with.")
@click.option("--wait", is_flag=True, help="Follow the evaluation to its end.")
@connected
def evaluate(session: Session, model: str, dataset: str, rule: str, baseline: str, wait: bool) -> None:
    """Evaluate a model version on a dataset version; a failed verdict exits with 1."""
    from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb

    base, number = versioned(dataset, "on")
    compared = ""
    if baseline:
        model_named = "@" in baseline or "/versions/" in baseline
        compared = model_version(session, baseline) if model_named else session.client.name("endpoint", baseline)
    spec = pb.Evaluation(
        model_version=model_version(session, model),
        dataset_version=session.client.dataset(base).version_name(number),
        rule=rule,
        baseline=compared,
    )
    made = session.client.evaluations.CreateEvaluation(
        pb.CreateEvaluationRequest(parent=session.client.project, evaluation=spec)
    )
    name = last_id(made.name)
    if not wait:
        session.show(made, f"started {name}; follow it: penstock evaluations show {name}")
        return
    done: pb.Evaluation = follow_work(
        lambda: session.client.evaluations.WatchEvaluation(pb.WatchEvaluationRequest(name=made.name)),
        lambda e: f"{last_id(e.name)}: {enum_name(e, 'state').lower()}",
        f"penstock evaluations show {name}",
    )
    _finish(session, done)


def _finish(session: Session, done: pb.Evaluation) -> None:
    if session.json:
        session.show(done)
    elif enum_name(done, "state") == "SUCCEEDED":
        _print(done)
    if enum_name(done, "state") != "SUCCEEDED":
        raise PenstockError(f"Evaluation {last_id(done.name)} {enum_name(done, 'state').lower()}: {done.reason}")
    if done.rule and not done.verdict.passed:
        raise PenstockError(f"The verdict failed: {done.verdict.reason}")


def _print(found: pb.Evaluation) -> None:
    state = enum_name(found, "state")
    if state == "SUCCEEDED":
        _print_metrics(found)
    else:
        reason = f": {found.reason}" if found.reason else ""
        click.echo(f"{short(found.model_version)} on {short(found.dataset_version)}: {state.lower()}{reason}")
    verdict = found.verdict
    if verdict.rule:
        reason = f" ({verdict.reason})" if verdict.reason else ""
        click.echo(f"\nverdict: {'passed' if verdict.passed else 'failed'}: {verdict.rule}{reason}")


def _print_metrics(done: pb.Evaluation) -> None:
    told = [(k, v) for k, v in sorted(done.metrics.items()) if k != "records" and not k.startswith("weighted_")]
    metrics = "  ".join(f"{k} {v:.4g}" for k, v in told)
    click.echo(f"{short(done.model_version)} on {short(done.dataset_version)} ({done.records} records): {metrics}")
    table(
        ["CLASS", "PRECISION", "RECALL", "F1", "RECORDS"],
        [[c.label, c.precision, c.recall, c.f1, c.support] for c in done.classes],
    )
    if done.confusion_matrix.labels:
        labels = list(done.confusion_matrix.labels)
        rows = [[label, *row.counts] for label, row in zip(labels, done.confusion_matrix.rows, strict=True)]
        click.echo("\ntrue \\ predicted")
        table(["", *labels], rows)


@click.group()
def evaluations() -> None:
    """Look at evaluations and their verdicts."""


@evaluations.command("list")
@connected
def list_evaluations(session: Session) -> None:
    """List evaluations, newest first."""
    from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListEvaluationsRequest(parent=session.client.project, page_size=1000)
    session.show_list(
        pages(session.client.evaluations.ListEvaluations, request, "evaluations"),
        [
            ("EVALUATION", lambda e: last_id(e.name)),
            ("STATE", lambda e: enum_name(e, "state").lower()),
            ("MODEL", lambda e: short(e.model_version)),
            ("DATASET", lambda e: short(e.dataset_version)),
            ("ACCURACY", lambda e: e.metrics.get("accuracy", "")),
            ("VERDICT", lambda e: ("passed" if e.verdict.passed else "failed") if e.verdict.rule else ""),
        ],
    )


@evaluations.command()
@click.argument("evaluation")
@connected
def show(session: Session, evaluation: str) -> None:
    """Show an evaluation: its state, metrics per class, confusion matrix, verdict."""
    from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb

    found = session.client.evaluations.GetEvaluation(
        pb.GetEvaluationRequest(name=session.client.name("evaluation", evaluation))
    )
    if session.json:
        session.show(found)
    else:
        _print(found)


@evaluations.command()
@click.argument("evaluation")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A .parquet file.")
@connected
def predictions(session: Session, evaluation: str, target: Path) -> None:
    """Download the predictions per record as Parquet."""
    from penstock.api.evaluation.v1 import evaluation_service_pb2 as pb
    from penstock.sdk.datasets import save_stream

    name = session.client.name("evaluation", evaluation)
    found = session.client.evaluations.GetEvaluation(pb.GetEvaluationRequest(name=name))
    stream = session.client.evaluations.ReadPredictions(pb.ReadPredictionsRequest(name=name))
    with writing(target):
        save_stream(target, (part.data for part in stream), found.predictions)
    session.show(found, f"wrote {target}")
