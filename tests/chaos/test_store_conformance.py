"""The store's conformance suite on servers that Penstock does not run: separate processes under the GPL.

SecantusDB comes from PyPI into an environment of its own. `secantusd-rs` (crates.io) is taken from
PENSTOCK_SECANTUSD_RS, or from `shared/tools` beside the repository.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECANTUSDB = "secantusdb==0.7.0b3"


def _servers() -> list[str]:
    given = Path(os.environ.get("PENSTOCK_SECANTUSD_RS", ROOT.parent / "shared" / "tools" / "secantusd-rs"))
    return ["secantus", *([str(given)] if given.exists() else [])]


@pytest.fixture(scope="session")
def secantusdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an installed SecantusDB's commands."""
    environment = tmp_path_factory.mktemp("secantusdb")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", SECANTUSDB]
    subprocess.run(pip, check=True)
    return environment / "bin"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("server", _servers(), ids=lambda server: Path(server).name)
def test_other_servers_agree(server: str, secantusdb: Path) -> None:
    """All of tests/integration/store, in a pytest of its own."""
    environment = {**os.environ, "PENSTOCK_TEST_STORE": server, "PATH": f"{secantusdb}:{os.environ['PATH']}"}
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/integration/store"]
    done = subprocess.run(suite, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8_000:]
