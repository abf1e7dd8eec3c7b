"""What people mistype, forget or interrupt at the command line, against a whole platform."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock.sdk.datasets import DatasetClient
from tests.e2e.conftest import Run


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


def test_an_interrupted_import_says_how_to_go_on(penstock: Run, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def interrupted(_: DatasetClient, *__: object, request_id: str, **___: object) -> None:
        used.append(request_id)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(DatasetClient, "import_file", interrupted)
        printed = penstock("dataset", "import", "cut-off", "--from", people, "--key", "name", code=130)
    assert used[0] and f"--request-id {used[0]}" in printed.err
    assert "penstock dataset versions cut-off" in printed.err
    command = ("dataset", "import", "cut-off", "--from", people, "--key", "name", "--request-id", used[0])
    assert penstock(*command).out == penstock(*command).out == "imported 2 records into cut-off@1\n"


@pytest.mark.parametrize(
    "arguments", [("model", "show", "nope"), ("pipeline", "runs", "nope"), ("pipeline", "why", "nope")]
)
def test_what_does_not_exist_is_not_shown_as_empty(penstock: Run, arguments: tuple[str, ...]) -> None:
    assert "nope" in penstock(*arguments, code=2).err


def test_a_deleted_pipeline_is_told_by_its_name_and_stays_readable(penstock: Run, people: Path, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "kind: Pipeline\nname: short-lived\non: {event: dataset.version.committed, filter: 'false'}\n"
        "steps: [{id: train, train: {dataset: watched, algorithm: mlp}}]\n"
    )
    penstock("pipeline", "apply", "-f", file)
    printed = penstock("pipeline", "runs", "short-lived")
    assert printed.out.split() == ["RUN", "STATE", "STEPS", "CAUSES", "CREATED", "REASON"]
    deleted = penstock("pipeline", "delete", "short-lived", "-o", "json")
    assert json.loads(deleted.out) == {"name": "projects/default/pipelines/short-lived"}


def test_what_cannot_be_written_names_the_option(penstock: Run, people: Path, tmp_path: Path) -> None:
    penstock("dataset", "import", "exported", "--from", people, "--key", "name")
    (tmp_path / "file").write_text("")
    printed = penstock("dataset", "export", "exported@1", "--to", tmp_path / "file" / "x", code=2)
    assert f"{tmp_path / 'file' / 'x'} cannot be written: Not a directory." in printed.err
    assert "(field: to)" in printed.err


def test_full_names_are_taken_where_ids_are(penstock: Run, people: Path) -> None:
    name = "projects/default/datasets/named"
    penstock("dataset", "import", name, "--from", people, "--key", "name")
    assert json.loads(penstock("dataset", "show", name, "-o", "json").out)["name"] == name
    assert penstock("dataset", "records", f"{name}/versions/1").out.count("\n") == 3
    assert "--project other" in penstock("dataset", "show", "projects/other/datasets/named", code=2).err
    assert "(field: dataset)" in penstock("dataset", "show", "projects/default/models/named", code=2).err


def test_a_mistyped_project_is_neither_empty_nor_filled(penstock: Run, people: Path) -> None:
    for command in (("dataset", "list"), ("dataset", "import", "lost", "--from", people, "--key", "name")):
        printed = penstock(*command, "--project", "defualt", code=2)
        assert (printed.out, "no project 'defualt'" in printed.err) == ("", True)
        assert "(field: project)" in printed.err
    assert "default" in penstock("admin", "project", "list").out


def test_an_evaluation_that_failed_is_shown_as_one(penstock: Run, people: Path) -> None:
    rows = "".join(f"{n},{n % 2},{'ab'[n % 2]}\n" for n in range(40))
    people.write_text("name,x,kind\n" + rows)
    penstock("dataset", "import", "judged", "--from", people, "--key", "name", "--label", "kind")
    penstock("train", "projects/default/datasets/judged/versions/1", "--algorithm", "logistic-regression", "--wait")
    people.write_text("name,y\nana,1\n")
    penstock("dataset", "import", "unlike", "--from", people, "--key", "name")
    shown = penstock(
        "evaluate", "judged", "--on", "unlike", "--rule", "accuracy >= 0.5", "--wait", "-o", "json", code=1
    )
    evaluation = json.loads(shown.out)
    printed = penstock("evaluations", "show", evaluation["name"]).out
    assert printed == f"judged@1 on unlike@1: failed: {evaluation['reason']}\n"
    done = penstock("evaluate", "judged", "--on", "judged", "--rule", "accuracy >= 0.5", "--wait").out
    assert "(40 records)" in done and "verdict: passed" in done
