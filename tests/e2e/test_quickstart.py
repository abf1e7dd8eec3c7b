"""The pages that a newcomer follows, run as they stand there: every `sh` block of the quickstart, then of the how-tos.

All blocks go through one shell, in a folder that looks like a clone: HOME is empty, the port is a free one by the
variable that the page names. What a page shows as output (a `text` block after a `sh` block) must come, line by line;
words with digits may differ.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.backing.ports import free_port

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
QUICKSTART = "quickstart.md"
# They go on from where the quickstart's platform is before it is stopped.
HOW_TOS = (
    "how-to/use-rest-with-curl.md",
    "how-to/use-a-triton-client.md",
    "how-to/publish-events.md",
    "how-to/use-your-own-code.md",
    "how-to/operate.md",
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = "@@@@ "
PATIENCE = 400  # seconds for all blocks


@dataclass(frozen=True)
class Block:
    """A `sh` block of a page, and the output that the page shows for it."""

    page: str
    number: int
    commands: str
    shown: str

    @property
    def label(self) -> str:
        return f"{self.page}#{self.number}"


def blocks(page: str) -> list[Block]:
    """The `sh` blocks of a page in order."""
    found: list[Block] = []
    fences = _FENCE.findall((DOCS / page).read_text(encoding="utf-8"))
    for position, (language, body) in enumerate(fences):
        if language == "sh":
            after = fences[position + 1] if position + 1 < len(fences) else ("", "")
            found.append(Block(page, len(found) + 1, body, after[1] if after[0] == "text" else ""))
    return found


def pattern(line: str) -> re.Pattern[str]:
    """What a shown line must look like: its words in order, those with a digit as any word, `…` as anything."""
    parts = [r"\s+".join(_word(word) for word in part.split()) for part in line.split("…")]
    return re.compile(".*".join(parts))


def _word(word: str) -> str:
    return r"\S+" if re.search(r"\d", word) else re.escape(word)


def script(all_blocks: list[Block], root: Path) -> str:
    """One script of all blocks, each page from the root of the clone, each block announced on stdout."""
    lines = ["set -eo pipefail"]
    page = ""
    for block in all_blocks:
        if block.page not in (page, QUICKSTART):
            lines.append(f"cd {root}")
        page = block.page
        lines += [f"printf '\\n{_MARK}{block.label}\\n'", block.commands]
    return "\n".join(lines)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the pages use of a clone."""
    root = tmp_path / "clone"
    root.mkdir()
    shutil.copytree(ROOT / "examples", root / "examples")
    shutil.copytree(DOCS, root / "docs")
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "activate").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
    return root


@pytest.fixture
def environment(clone: Path) -> Iterator[dict[str, str]]:
    """A user's environment, and no platform left in it."""
    shared = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    user_home = clone.parent / "user"
    user_home.mkdir()
    given = {
        "HOME": str(user_home),
        "XDG_DATA_HOME": shared,
        "PORT": str(free_port()),
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    yield given
    home = user_home / "penstock-quickstart"
    if home.is_dir():
        stop = [sys.executable, "-m", "penstock.cli", "down", "--home", str(home)]
        subprocess.run(stop, env=given, check=True, timeout=120, capture_output=True)


@pytest.mark.timeout(PATIENCE + 150)
def test_the_pages_can_be_followed_as_they_stand_there(clone: Path, environment: dict[str, str]) -> None:
    quickstart = blocks(QUICKSTART)
    to_run = [*quickstart[:-1], *(block for page in HOW_TOS for block in blocks(page)), quickstart[-1]]
    log = clone.parent / "output"
    with log.open("wb") as output:
        done = subprocess.run(
            ["bash", "-c", script(to_run, clone)],
            cwd=clone, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False,
        )  # fmt: skip
    parts = log.read_text(encoding="utf-8", errors="replace").split(_MARK)
    outputs = dict(part.split("\n", 1) for part in parts[1:])
    assert done.returncode == 0, f"{parts[-1]}\nexited with {done.returncode}"
    for block in to_run:
        for line in filter(str.strip, block.shown.splitlines()):
            text = outputs[block.label]
            assert pattern(line.strip()).search(text), f"{block.label} does not print {line!r}, but:\n{text}"


def test_a_shown_line_that_no_command_prints_is_found() -> None:
    assert pattern("t-102  changed  kind").search("t-140   changed   kind    home")
    assert not pattern("t-102  removed  kind").search("t-102   changed   kind    home")


def test_the_files_of_the_quickstart_are_those_that_the_page_shows() -> None:
    shown = [body for language, body in _FENCE.findall((DOCS / QUICKSTART).read_text()) if language == "yaml"]
    folder = ROOT / "examples" / "quickstart"
    assert shown == [(folder / name).read_text() for name in ("study.yaml", "pipeline.yaml")]
