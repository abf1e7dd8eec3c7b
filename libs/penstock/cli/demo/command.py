"""The command itself: a fresh platform, the loop, the report, and nothing left running."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from penstock import names
from penstock.cli.common import output_option, show_facts
from penstock.cli.files import writing
from penstock.cli.platform import DEFAULT_PORT, ensure_setup, start_detached, stop_platform
from penstock.errors import FailedPrecondition, PenstockError


@click.command()
@click.option("--seed", default=1, show_default=True, help="Which digits are mislabelled, and how.")
@click.option("--keep", is_flag=True, help="Leave the platform up and say what to try.")
@click.option(
    "--port", default=0, type=click.IntRange(0, 65535), help=f"The platform's port [{DEFAULT_PORT}, or a free one]."
)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("penstock-demo"),
    show_default=True,
    help="Where requests, models and the summary are written.",
)
@click.option("--project", metavar="PROJECT", default="default", show_default=True, help="In which project.")
@output_option
def demo(seed: int, keep: bool, port: int, folder: Path, project: str, output: str) -> None:
    """Close the whole loop once, on handwritten digits; a fresh platform, which is gone afterwards."""
    names.check_id(project, "project")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    ensure_setup()
    home = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    kept = False
    try:
        summary = _run(home, seed, port, folder.absolute(), project, output)
        kept = keep
    except BaseException:
        if (home / "logs").is_dir():
            shutil.copytree(home / "logs", folder / "logs", dirs_exist_ok=True)
            click.echo(f"the platform's logs are in {folder / 'logs'}", err=True)
        raise
    finally:
        if not kept:
            stop_platform(home)
            shutil.rmtree(home, ignore_errors=True)
    if keep and output == "table":
        from penstock.cli.demo.report import next_steps

        next_steps(str(home), summary["url"], project)
    show_facts(output, {**summary, "home": str(home) if keep else None})
    if summary["failed_requests"] or summary["wrong_answers"]:
        raise PenstockError("Requests failed or were answered wrongly; see the figures.")


def _start(home: Path, port: int, project: str) -> str:
    from penstock.backing.ports import free_port, port_free

    if port or not port_free(DEFAULT_PORT):
        return start_detached(home, port or free_port(), project)
    try:
        return start_detached(home, DEFAULT_PORT, project)
    except FailedPrecondition:
        if port_free(DEFAULT_PORT):
            raise
        return start_detached(home, free_port(), project)  # another one took it first


def _run(home: Path, seed: int, port: int, folder: Path, project: str, output: str) -> dict[str, Any]:
    from penstock.cli.demo.digits import load_digits
    from penstock.cli.demo.loop import Loop
    from penstock.cli.demo.recompute import Model, wrong_answers
    from penstock.cli.demo.report import show, summarize
    from penstock.sdk.client import Client

    began = time.monotonic()
    say = _sayer(began)
    say("starting the platform in a fresh home")
    url = _start(home, port, project)
    started = time.monotonic() - began
    with Client(url, (home / "token").read_text().strip(), project) as client:
        loop = Loop(client, load_digits(seed), folder, say)
        loop.seconds["start"] = round(started, 2)
        traffic = loop.run()
        traffic.write(folder / "requests.jsonl")
        say("computing every answer again with onnxruntime alone")
        models = {revision: Model(path) for revision, path in loop.download_models().items()}
        summary = summarize(loop, traffic, wrong_answers(traffic.seen, models), time.monotonic() - began)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False), encoding="utf-8")
    if output == "table":
        show(summary, loop)
    return summary


def _sayer(began: float) -> Any:
    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {text}", err=True)

    return say
