"""What is installed is fixed to the byte: every requirement has a version and hashes, and comes from an index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import InvalidRequirement, Requirement

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "requirements.lock", ROOT / "libs" / "penstock" / "backing" / "triton-requirements.txt"]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(text: str) -> list[str]:
    """The requirements with what belongs to them, each on one line, without comments."""
    joined = re.sub(r"\\\s*\n", " ", text)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def problems(text: str) -> list[str]:
    """What is wrong with a lock file."""
    found, names = [], set()
    for entry in entries(text):
        words = entry.split(" --hash")[0].strip()
        try:
            requirement = Requirement(words)
        except InvalidRequirement:
            found.append(f"no requirement: {words[:80]}")
            continue
        pins = list(requirement.specifier)
        if requirement.url or len(pins) != 1 or pins[0].operator != "==" or pins[0].version.endswith("*"):
            found.append(f"not fixed: {words}")
        hashes = entry.count("--hash=")
        if not hashes or len(HASH.findall(entry)) != hashes:
            found.append(f"without good hashes: {words}")
        if requirement.name in names and not requirement.marker:
            found.append(f"twice: {requirement.name}")
        names.add(requirement.name)
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_requirement_has_a_version_and_hashes(path: Path) -> None:
    text = path.read_text()
    assert len(entries(text)) > 3
    assert problems(text) == []


@pytest.mark.parametrize(
    "line",
    [
        "requests==2.0",
        "requests>=2.0 --hash=sha256:" + "a" * 64,
        "requests==2.* --hash=sha256:" + "a" * 64,
        "requests==2.0 --hash=md5:" + "a" * 32,
        "requests==2.0 \\\n    --hash=sha256:" + "a" * 63,
        "requests @ https://example.com/requests.whl --hash=sha256:" + "a" * 64,
        "-e git+https://example.com/x#egg=x",
        "--extra-index-url https://example.com/simple",
        "https://example.com/requests.whl",
    ],
)
def test_a_lock_that_fixes_less_is_seen(line: str) -> None:
    assert problems(line)


def test_the_lock_has_all_that_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    locked = {
        Requirement(entry.split(" --hash")[0]).name.lower().replace("_", "-") for entry in entries(LOCKS[0].read_text())
    }
    names = {Requirement(text).name.lower().replace("_", "-") for text in asked} - {"penstock"}
    assert names - locked == set()


def test_both_installers_ask_for_the_hashes() -> None:
    installers = [ROOT / "Makefile", ROOT / "libs" / "penstock" / "backing" / "triton_environment.py"]
    assert all("--require-hashes" in path.read_text() for path in installers)
