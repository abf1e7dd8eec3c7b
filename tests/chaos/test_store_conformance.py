"""The store's conformance suite on servers that Penstock does not run: separate processes under the GPL.

SecantusDB comes from PyPI into an environment of its own. `secantusd-rs` (crates.io) is the program that
PENSTOCK_SECANTUSD_RS names; without it, the table says that it was not run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.conftest import Report
from tests.chaos.pytests import run_tests

SECANTUSDB = "secantusdb==0.7.0b3"
RUST = os.environ.get("PENSTOCK_SECANTUSD_RS", "")


@pytest.mark.timeout(1200)
def test_secantusdb_agrees(report: Report, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", SECANTUSDB]
    installed = subprocess.run(pip, stderr=subprocess.PIPE, text=True, check=False)
    if installed.returncode:
        report.store(SECANTUSDB, f"not run: it cannot be installed: {installed.stderr.strip()[-100:]}")
        pytest.skip("SecantusDB cannot be installed")
    conforms("secantus", SECANTUSDB, report, tmp_path, f"{environment / 'bin'}:{os.environ['PATH']}")


@pytest.mark.timeout(1200)
def test_secantusd_rs_agrees(report: Report, tmp_path: Path) -> None:
    if not RUST:
        report.store("secantusd-rs", "not run: PENSTOCK_SECANTUSD_RS does not name it")
        pytest.skip("PENSTOCK_SECANTUSD_RS is not set")
    conforms(RUST, "secantusd-rs", report, tmp_path, os.environ["PATH"])


def conforms(server: str, name: str, report: Report, folder: Path, path: str) -> None:
    """All of tests/integration/store, in a pytest of its own, against that server."""
    environment = {"PENSTOCK_TEST_STORE": server, "PATH": path}
    results = run_tests(folder, "tests/integration/store", environment=environment)
    counted = Counter(result.outcome for result in results)
    report.store(name, ", ".join(f"{count} {outcome}" for outcome, count in sorted(counted.items())))
    assert [result for result in results if result.outcome != "passed"] == []
