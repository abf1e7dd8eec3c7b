"""The demo does what it says, and what it says can be checked from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.backing.ports import free_port

PENSTOCK = [sys.executable, "-m", "penstock.cli"]
RECOMPUTE = Path(__file__).with_name("recompute_demo.py")


def _json(home: str, *arguments: str) -> Any:
    environment = {**os.environ, "PENSTOCK_HOME": home}
    done = subprocess.run([*PENSTOCK, *arguments, "--output", "json"], env=environment, capture_output=True, check=True)
    return json.loads(done.stdout)


def _alive_with(text: str) -> list[str]:
    """Command lines of running processes that name a path."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if text in line and str(os.getpid()) not in path.parts:
            found.append(line)
    return found


@pytest.mark.timeout(300)
def test_the_demo_closes_the_loop_and_everything_it_claims_can_be_checked_from_outside(tmp_path: Path) -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    command = [*PENSTOCK, "demo", "--seed", "7", "--keep", "--to", str(tmp_path), "--port", str(free_port())]
    done = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    home = told["home"]
    try:
        _check_figures(told)
        _check_answers(told, home, tmp_path)
        _check_reasons(told, home)
    finally:
        subprocess.run([*PENSTOCK, "down", "--home", home], check=True, capture_output=True)
        subprocess.run(["rm", "-rf", home], check=True)
    assert _alive_with(home) == []
    assert not {name for name in set(os.listdir("/dev/shm")) - shared_memory if name.startswith("penstock")}


def _check_figures(told: dict[str, Any]) -> None:
    assert told["accuracy_after"] > told["accuracy_before"]
    assert told["requests"] > 500
    assert all(count >= 100 for count in told["requests_near_switch"].values())
    assert len(told["requests_near_switch"]) == 2
    assert told["failed_requests"] == 0
    assert told["wrong_answers"] == 0
    assert len(told["corrected"]) == 112


def _check_answers(told: dict[str, Any], home: str, folder: Path) -> None:
    """A script that shares no code with the demo computes the same from the requests and the downloaded models."""
    environment = {**os.environ, "PENSTOCK_HOME": home}
    done = subprocess.run(
        [sys.executable, str(RECOMPUTE), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["requests"] == told["requests"]
    assert again["failed_requests"] == 0
    assert again["wrong_answers"] == 0
    assert again["accuracy_after"] > again["accuracy_before"]


def _check_reasons(told: dict[str, Any], home: str) -> None:
    diff = _json(home, "dataset", "diff", "digits", "1", "2")["items"]
    assert sorted(change["key"] for change in diff) == told["corrected"]
    assert all(change["fields"] == ["label"] for change in diff)

    entries = _json(home, "admin", "audit", "--limit", "1000")["items"]
    commit = max(e["time"] for e in entries if e["method"].endswith("CommitDraft"))
    later = [entry for entry in entries if entry["time"] > commit]
    assert later, "the pipeline's own commands are in the log"
    assert [entry for entry in later if entry["subject"] == "home"] == []

    fired = [d for d in _json(home, "pipeline", "why", "retrain-digits")["items"] if d["outcome"] == "FIRED"]
    assert [decision["cause"]["data"]["version"] for decision in fired] == [told["dataset_version"]]

    kinds = {node["kind"] for node in told["trace"]["nodes"]}
    assert {"prediction", "revision", "model_version", "run", "dataset_version"} <= kinds
    assert sorted(record["key"] for record in told["trace"]["records"]) == told["corrected"]
    assert all(record["author"] == "home" and record["why"] for record in told["trace"]["records"])
