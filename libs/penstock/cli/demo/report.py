"""What the demo tells at its end: a table for people, the same facts for programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from penstock.cli.common import table, to_dict
from penstock.cli.demo.loop import DATASET, ENDPOINT, PIPELINE, Loop
from penstock.cli.demo.traffic import Traffic, percentile
from penstock.cli.lineage import tree

NEAR = 5.0  # seconds around the switch


def summarize(loop: Loop, traffic: Traffic, wrong: int, total_seconds: float) -> dict[str, Any]:
    """All facts of a demo, as `--output json` prints them."""
    answered = [request for request in traffic.seen if request.prediction]
    newest = max(loop.facts["models"])
    switch = min((request.at for request in answered if request.revision == newest), default=0.0)
    near = Counter(request.revision for request in answered if abs(request.at - switch) <= NEAR)
    latencies = [request.seconds for request in answered]
    graph, records = to_dict(loop.facts["graph"]), to_dict(loop.facts["records"])
    return {
        "accuracy_before": loop.facts["accuracy_before"],
        "accuracy_after": loop.facts["accuracy_after"],
        "requests": len(traffic.seen),
        "requests_per_revision": dict(sorted(Counter(str(request.revision) for request in answered).items())),
        "requests_near_switch": {str(revision): count for revision, count in sorted(near.items())},
        "failed_requests": len(traffic.seen) - len(answered),
        "wrong_answers": wrong,
        "p50_ms": round(percentile(latencies, 0.50) * 1000, 2),
        "p99_ms": round(percentile(latencies, 0.99) * 1000, 2),
        "corrected": sorted(loop.digits.corrections),
        "dataset_version": loop.facts["dataset_version"],
        "pipeline_run": loop.facts["pipeline_run"],
        "cause": loop.facts["cause"],
        "correlation_id": loop.facts["correlation_id"],
        "models": {str(revision): name for revision, name in sorted(loop.facts["models"].items())},
        "study": loop.facts["study"],
        "prediction": loop.facts["prediction"],
        "trace": {**graph, "records": records["records"], "comparedWith": records["comparedWith"]},
        "stages": loop.seconds,
        "commit_to_served": loop.facts["commit_to_served"],
        "seconds": round(total_seconds, 2),
        "folder": str(loop.folder),
        "url": loop.client.url,
    }


def show(summary: dict[str, Any], loop: Loop) -> None:
    """Print the facts for a person."""
    table(["STAGE", "SECONDS"], [[name, f"{value:.2f}"] for name, value in summary["stages"].items()])
    click.echo()
    rows = [
        ("accuracy before", f"{summary['accuracy_before']:.4f}"),
        ("accuracy after", f"{summary['accuracy_after']:.4f}"),
        ("labels corrected", len(summary["corrected"])),
        ("commit to new model serving", f"{summary['commit_to_served']:.2f} s"),
        ("requests", summary["requests"]),
        *((f"  of revision {number}", count) for number, count in summary["requests_per_revision"].items()),
        ("failed requests", summary["failed_requests"]),
        ("wrong answers", summary["wrong_answers"]),
        ("latency p50 / p99", f"{summary['p50_ms']} / {summary['p99_ms']} ms"),
        ("correlation id", summary["correlation_id"]),
        ("seconds in all", f"{summary['seconds']:.1f}"),
    ]
    table(["", ""], [[name, str(value)] for name, value in rows])
    click.echo("\nWhy this prediction is what it is:\n")
    click.echo("\n".join(tree(summary["prediction"], loop.facts["graph"].nodes, loop.facts["graph"].edges)))
    records = summary["trace"]["records"]
    click.echo(f"\nand {len(records)} records changed since {summary['trace']['comparedWith'] or 'nothing'}, such as")
    for record in records[:3]:
        before, after = record.get("before", {}).get("label"), record.get("after", {}).get("label")
        click.echo(f"  {record['key']}: label {before} → {after}, by {record['author']}: {record['why']}")
    click.echo(f"\nevery request and answer: {summary['folder']}/requests.jsonl")


def next_steps(home: str, url: str, project: str) -> None:
    """What to try on a platform that was left up."""
    settings = f"PENSTOCK_HOME={home}" + (f" and PENSTOCK_PROJECT={project}" if project != "default" else "")
    click.echo(f"\nThe platform is still up at {url}. Try, with {settings}:")
    for line in (
        f"penstock dataset diff {DATASET} 1 2",
        f"penstock pipeline why {PIPELINE}",
        f"penstock endpoint show {ENDPOINT}",
        "penstock admin audit",
        f"penstock down --home {home}",
    ):
        click.echo(f"  {line}")
