"""What people mistype, forget or interrupt at the command line, against a whole platform."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.cli import main as cli
from tests.e2e.conftest import Platform


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


@pytest.fixture
def people(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    file.write_text("name,x\nana,1\nbo,2\n")
    return file


@pytest.mark.parametrize(
    ("name", "content", "options", "field"),
    [
        ("people.csv", "name,x\nana,1\n", ("--key", "nmae", "--label", "kidn"), ""),
        ("people.csv", None, ("--key", "nmae"), "from"),
        ("people.json", "[]", ("--key", "nmae"), "from"),
        ("people.csv", "", ("--key", "nmae"), "from"),
        ("people.csv", "name,x\nana\n", ("--key", "name", "--label", "kidn"), ""),
        ("people.csv", "name,x\nana,1\n", ("--key", "nmae", "--draft", "No!"), "draft"),
    ],
)
def test_an_import_that_failed_settles_nothing_for_the_next(
    penstock: Run, people: Path, request: pytest.FixtureRequest,
    name: str, content: str | None, options: tuple[str, ...], field: str,
) -> None:  # fmt: skip
    dataset = f"mistyped-{request.node.callspec.indices['name']}"
    wrong = people.parent / "wrong" / name
    wrong.parent.mkdir()
    if content is not None:
        wrong.write_text(content)
    printed = penstock("dataset", "import", dataset, "--from", wrong, *options, code=2)
    assert printed.err.endswith(f"(field: {field})\n") if field else f"{name}: " in printed.err
    penstock("dataset", "import", dataset, "--from", people, "--key", "name", "--label", "x")
    shown = json.loads(penstock("dataset", "show", dataset, "-o", "json").out)
    assert (shown["keyField"], shown["labelField"], shown["head"]) == ("name", "x", "1")


def test_another_key_than_the_datasets_names_the_option(penstock: Run, people: Path) -> None:
    penstock("dataset", "import", "keyed", "--from", people, "--key", "name")
    assert "(field: key)" in penstock("dataset", "import", "keyed", "--from", people, "--key", "x", code=2).err


def test_the_conflicts_of_a_commit_are_shown(penstock: Run, people: Path) -> None:
    penstock("dataset", "import", "disputed", "--from", people, "--key", "name")
    for draft, value in (("mine", 7), ("theirs", 8)):
        penstock("dataset", "patch", "disputed", "ana", f"x={value}", "--draft", draft)
    penstock("dataset", "delete", "disputed", "bo", "--draft", "mine")
    penstock("dataset", "patch", "disputed", "bo", "x=9", "--draft", "theirs")
    penstock("dataset", "commit", "disputed", "-m", "first", "--draft", "theirs")
    printed = penstock("dataset", "commit", "disputed", "-m", "second", "--draft", "mine", code=1)
    lines = [line.split(maxsplit=4) for line in printed.out.splitlines()]
    assert lines[:2] == [["KEY", "FIELD", "WAS", "IS", "YOURS"], ["ana", "x", "1", "8", "7"]]
    assert "(no record)" in printed.out.splitlines()[2]
    assert "2 records were changed by newer versions too" in printed.err
    shown = penstock("dataset", "commit", "disputed", "-m", "second", "--draft", "mine", "-o", "json", code=1)
    conflicts = json.loads(shown.out)["conflicts"]
    assert [(c["key"], c.get("theirs"), c.get("mine")) for c in conflicts] == [
        ("ana", {"name": "ana", "x": 8}, {"name": "ana", "x": 7}),
        ("bo", {"name": "bo", "x": 9}, None),
    ]
