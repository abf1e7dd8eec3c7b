"""A platform that is stopped and started again: what was served is served when `up` returns."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.backing.ports import free_port
from tests.e2e.conftest import PENSTOCK, Platform

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Platform]:
    """A platform of this test's own, not started."""
    home = tmp_path / "home"
    yield Platform(home, f"http://127.0.0.1:{free_port()}", "")
    subprocess.run([*PENSTOCK, "down", "--home", str(home)], check=True, timeout=120, capture_output=True)


def up(platform: Platform) -> None:
    said = platform.run("up", "--home", str(platform.home), "--port", platform.url.rpartition(":")[2], "--detach")
    assert said.splitlines()[-1] == f"ready {platform.url}"


def infer(platform: Platform) -> int:
    """The status of one request, asked once."""
    request = urllib.request.Request(
        f"{platform.url}/v2/models/teas/infer",
        (EXAMPLE / "request.json").read_bytes(),
        {
            "authorization": f"Bearer {(platform.home / 'token').read_text().strip()}",
            "content-type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


def test_endpoints_answer_when_up_returns(own: Platform) -> None:
    up(own)
    own.run("dataset", "import", "teas", "--from", str(EXAMPLE / "teas.csv"), "--key", "sample", "--label", "kind")
    own.run("train", "teas", "--algorithm", "logistic-regression", "--wait")
    own.run("endpoint", "deploy", "teas", "teas@1", "--wait")
    assert infer(own) == 200
    assert json.loads(own.run("down", "--home", str(own.home), "-o", "json")) == {
        "home": str(own.home),
        "stopped": True,
    }
    port = own.url.rpartition(":")[2]
    again = own.run("up", "--home", str(own.home), "--port", port, "--detach", "--project", "vision", "-o", "json")
    token = str(own.home / "token")
    assert json.loads(again) == {"home": str(own.home), "url": own.url, "token_file": token, "ready": True}
    assert infer(own) == 200
    made = json.loads(own.run("admin", "project", "list", "-o", "json"))["items"]
    assert {project["name"] for project in made} == {"projects/default", "projects/vision"}
