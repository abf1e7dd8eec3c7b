"""A pytest of its own for tests that run changed, or elsewhere, and what came of each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """One test: `outcome` is passed, failed, error or skipped; `message` is the first line of why."""

    file: str
    test: str
    outcome: str
    message: str


def run_tests(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Sequence[Result]:
    """Run pytest with these arguments; `folder` is for its own files. Raises AssertionError if nothing was run."""
    found = folder / "results.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={found}", *arguments]
    command.append(f"--basetemp={folder / 'temp'}")
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert found.exists(), done.stdout[-4_000:]
    results = [_result(case) for case in ElementTree.parse(found).getroot().iter("testcase")]
    assert results, done.stdout[-4_000:]
    return results


def _result(case: ElementTree.Element) -> Result:
    for outcome in ("error", "failure", "skipped"):
        element = case.find(outcome)
        if element is not None:
            lines = (element.get("message") or "").splitlines() or [""]
            named = "failed" if outcome == "failure" else outcome
            return Result(_file(case), str(case.get("name")), named, lines[0])
    return Result(_file(case), str(case.get("name")), "passed", "")


def _file(case: ElementTree.Element) -> str:
    return str(case.get("classname")).removeprefix("tests.integration.").replace(".", "/")
