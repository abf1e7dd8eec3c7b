"""A whole platform, started as a user does, shared by the tests that only use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.backing.ports import free_port
from penstock.cli import main as cli
from tests.support.attacker import Victim
from tests.support.rivals import Rival, make_rivals

PENSTOCK = [sys.executable, "-m", "penstock.cli"]


@dataclass(frozen=True)
class Platform:
    """A running platform: its home, URL and the home's token."""

    home: Path
    url: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """What commands need to find it."""
        return {**os.environ, "PENSTOCK_HOME": str(self.home)}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command of the CLI and answer its stdout; fails unless it exits with `code`."""
        done = subprocess.run(
            [*PENSTOCK, *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=150
        )
        assert done.returncode == code, f"{arguments} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for the session."""
    home = tmp_path_factory.mktemp("platform") / "home"
    url = f"http://127.0.0.1:{free_port()}"
    arguments = ["up", "--home", str(home), "--port", url.rpartition(":")[2], "--detach"]
    try:
        subprocess.run([*PENSTOCK, *arguments], check=True, timeout=180, capture_output=True)
        yield Platform(home, url, (home / "token").read_text().strip())
    finally:
        subprocess.run([*PENSTOCK, "down", "--home", str(home)], check=True, timeout=120, capture_output=True)


@pytest.fixture(scope="session")
def victim(platform: Platform) -> Victim:
    """The platform as an attacker sees it."""
    return Victim(platform.home, platform.url, platform.token)


@pytest.fixture(scope="session")
def rivals(victim: Victim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rival, Rival]]:
    """Two projects on it, with a dataset, a model and an endpoint of the same names."""
    made = make_rivals(victim, tmp_path_factory.mktemp("rivals"))
    yield made
    for rival in made:
        rival.client.close()
        rival.admin.close()


class Printed(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Printed]


@pytest.fixture
def penstock(platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, with the platform's home."""
    monkeypatch.setenv("PENSTOCK_HOME", str(platform.home))

    def run(*arguments: object, code: int = 0) -> Printed:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        printed = Printed(int(left.value.code or 0), *capsys.readouterr())
        assert printed.code == code, printed
        return printed

    return run
