"""Links lead somewhere, commands exist, lines fit, and the quickstart's table is the one that its script makes."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

import click
import pytest

from penstock.cli.main import cli

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WIDTH = 120
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"(?:^|[`(\s])penstock((?: [a-z][a-z-]*)+)", re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {"".join(c for c in h.lower() if c.isalnum() or c in " -_").replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_fit(page: Path) -> None:
    prose = [line for line in _FENCE.sub("", page.read_text()).splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > WIDTH] == []


def command_exists(words: list[str]) -> bool:
    """Whether words name a command; what follows a command that is no group are its arguments."""
    current: click.Command = cli
    for word in words:
        if not isinstance(current, click.Group):
            return True
        found = current.get_command(click.Context(current), word)
        if found is None:
            return False
        current = found
    return True


def test_the_check_of_commands_notices_one_that_does_not_exist() -> None:
    assert command_exists(["dataset", "import", "teas"])
    assert not command_exists(["dataset", "imports"])


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=name_of)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    blocks = "\n".join(block for block in _FENCE.findall(text) if not block.startswith("```python"))
    spans = "\n".join(re.findall(r"`(penstock [^`]+)`", _FENCE.sub("", text)))
    for words in _COMMAND.findall(f"{blocks}\n{spans}"):
        assert command_exists(words.split()), words


def test_the_quickstarts_table_is_the_one_that_its_script_makes(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "quickstart"
    spec = importlib.util.spec_from_file_location("make_teas", folder / "make_teas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(tmp_path)
    for name in ("teas.csv", "teas-checked.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
