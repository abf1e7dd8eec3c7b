"""`penstock tune` and `penstock studies …`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.common import Session, connected, describe, enum_name, last_id, short, to_dict
from penstock.cli.files import read_yaml
from penstock.cli.progress import follow_work
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from penstock.api.tuning.v1 import tuning_service_pb2 as pb


@click.command()
@click.option("--file", "-f", "file", required=True, type=click.Path(path_type=Path), help="The study, in YAML.")
@click.option("--request-id", default="", help="The same id again answers the same study.")
@click.option("--wait", is_flag=True, help="Follow the study to its end.")
@connected
def tune(session: Session, file: Path, request_id: str, wait: bool) -> None:
    """Start a study: search hyper-parameters with many trials at once."""
    from penstock.api.tuning.v1 import tuning_service_pb2 as pb
    from penstock.sdk.studies import parse_study

    study_id, study = parse_study(session.client, read_yaml(file))
    made = session.client.tuning.CreateStudy(
        pb.CreateStudyRequest(parent=session.client.project, study_id=study_id, study=study, request_id=request_id)
    )
    name = last_id(made.name)
    if not wait:
        session.show(made, f"started {name}; follow it: penstock studies show {name}")
        return
    done = follow_work(
        lambda: session.client.tuning.WatchStudy(pb.WatchStudyRequest(name=made.name)),
        _line,
        f"penstock studies show {name}",
    )
    if enum_name(done, "state") != "SUCCEEDED":
        if session.json:
            session.show(done)
        raise PenstockError(f"Study {name} {enum_name(done, 'state').lower()}: {done.reason}")
    session.show(
        done, f"{name}: best {done.objective.metric} {done.best_value:.4g} by trial {last_id(done.best_trial)}, "
        f"made {short(done.model_version)}"
    )  # fmt: skip


def _line(study: pb.Study) -> str:
    ended = study.trials_completed + study.trials_failed
    best = f", best {study.best_value:.4g}" if study.best_trial else ""
    return f"{last_id(study.name)}: {ended}/{study.max_trials} trials, {study.trials_running} running{best}"


@click.group()
def studies() -> None:
    """Look at studies and stop them."""


@studies.command("list")
@connected
def list_studies(session: Session) -> None:
    """List studies, newest first."""
    from penstock.api.tuning.v1 import tuning_service_pb2 as pb
    from penstock.cli.paging import pages

    request = pb.ListStudiesRequest(parent=session.client.project, page_size=1000)
    session.show_list(
        pages(session.client.tuning.ListStudies, request, "studies"),
        [
            ("STUDY", lambda s: last_id(s.name)),
            ("STATE", lambda s: enum_name(s, "state").lower()),
            ("DATASET", lambda s: short(s.dataset_version)),
            ("TRIALS", lambda s: f"{s.trials_completed + s.trials_failed}/{s.max_trials}"),
            ("BEST", lambda s: s.best_value if s.best_trial else ""),
            ("MODEL", lambda s: short(s.model_version)),
        ],
    )


@studies.command()
@click.argument("study")
@connected
def show(session: Session, study: str) -> None:
    """Show a study and its trials."""
    from penstock.api.tuning.v1 import tuning_service_pb2 as pb
    from penstock.cli.paging import pages

    found = session.client.tuning.GetStudy(pb.GetStudyRequest(name=session.client.name("study", study)))
    request = pb.ListTrialsRequest(parent=found.name, page_size=1000)
    trials = list(pages(session.client.tuning.ListTrials, request, "trials"))
    if session.json:
        session.show_json({**to_dict(found), "trials": [to_dict(t) for t in trials]})
        return
    click.echo(describe(to_dict(found)))
    session.show_list(
        trials,
        [
            ("TRIAL", lambda t: t.number),
            ("STATE", lambda t: enum_name(t, "state").lower()),
            ("VALUE", lambda t: t.value if enum_name(t, "state") == "COMPLETED" else ""),
            ("PARAMETERS", lambda t: " ".join(_assigned(*pair) for pair in sorted(to_dict(t)["parameters"].items()))),
            ("RUN", lambda t: last_id(t.run)),
            ("REASON", lambda t: t.reason),
        ],
    )


def _assigned(name: str, value: object) -> str:
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


@studies.command()
@click.argument("study")
@connected
def stop(session: Session, study: str) -> None:
    """Stop a study: running trials are cancelled, what was told counts."""
    from penstock.api.tuning.v1 import tuning_service_pb2 as pb

    changed = session.client.tuning.CancelStudy(pb.CancelStudyRequest(name=session.client.name("study", study)))
    session.show(changed, f"{study}: {enum_name(changed, 'state').lower()}")
