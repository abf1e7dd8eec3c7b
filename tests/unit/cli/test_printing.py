"""What commands read of their arguments and files, and how they print resources."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from penstock import errors
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pb
from penstock.cli.common import Session, assignments, describe, short, table
from penstock.cli.files import read_json, read_yaml
from penstock.cli.paging import pages


def test_values_are_json_where_they_parse() -> None:
    found = assignments(["a=1", "b=x", 'c={"d": [true]}', "e=", "f=a=b", "g=007"], "fields")
    assert found == {"a": 1, "b": "x", "c": {"d": [True]}, "e": "", "f": "a=b", "g": "007"}


@pytest.mark.parametrize("pair", ["a", "=1", ""])
def test_what_is_no_assignment_is_refused(pair: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        assignments([pair], "fields")
    assert caught.value.violations[0].field == "fields"


def test_json_output_is_the_resource_or_its_items(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(None, None, None, "json")
    pipeline = pb.Pipeline(name="projects/p/pipelines/x", max_recurrence=3, sequence=7)
    session.show(pipeline, "text")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["maxRecurrence"], shown["sequence"], shown["paused"]) == (pipeline.name, 3, "7", False)
    session.show_list([pipeline], [("NAME", lambda p: p.name)])
    assert json.loads(capsys.readouterr().out) == {"items": [shown]}
    session.show_list([], [])
    assert json.loads(capsys.readouterr().out) == {"items": []}


def test_tables_are_aligned_and_an_empty_one_says_so_aside(capsys: pytest.CaptureFixture[str]) -> None:
    table(["A", "LONG"], [["xyz", 0.123456], ["x", None]])
    assert capsys.readouterr().out == "A    LONG\nxyz  0.1235\nx\n"
    table(["A"], [])
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("A\n", "(none)\n")


def test_long_cells_are_cut_for_a_person_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table(["A"], [["x" * 100]])
    assert capsys.readouterr().out == f"A\n{'x' * 100}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table(["A"], [["x" * 100]])
    assert capsys.readouterr().out == f"A\n{'x' * 79}…\n"


def test_a_description_leaves_empty_fields_out() -> None:
    document = {"name": "x", "empty": "", "inner": {"a": 1, "b": 0}, "items": [{"c": 1, "d": 2}], "none": {}}
    assert describe(document).splitlines() == ["name: x", "inner:", "  a: 1", "items:", "  - c: 1", "    d: 2"]


def test_versions_are_shown_as_they_are_typed() -> None:
    assert short("projects/p/models/digits/versions/3") == "digits@3"
    assert short("projects/p/runs/r1") == "r1"


def test_files_that_are_wrong_name_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1\nb: 2\n")
    (tmp_path / "a.json").write_text('{"a": 1,\n}')
    with pytest.raises(errors.InvalidArgument, match="line 2") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert caught.value.violations[0].field == "file"
    with pytest.raises(errors.InvalidArgument, match="line 2"):
        read_json(tmp_path / "a.json")
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(errors.InvalidArgument, match="cannot be read"):
            read_json(missing)


def test_pages_are_asked_for_until_there_are_no_more_or_enough() -> None:
    asked: list[str] = []

    def method(request: pb.ListPipelinesRequest) -> pb.ListPipelinesResponse:
        asked.append(request.page_token)
        number = len(asked)
        names = [pb.Pipeline(name=f"{number}-{n}") for n in range(2)]
        return pb.ListPipelinesResponse(pipelines=names, next_page_token=str(number) if number < 3 else "")

    assert [p.name for p in pages(method, pb.ListPipelinesRequest(), "pipelines")] == [
        "1-0", "1-1", "2-0", "2-1", "3-0", "3-1",
    ]  # fmt: skip
    assert asked == ["", "1", "2"]
    asked.clear()
    assert len(list(pages(method, pb.ListPipelinesRequest(), "pipelines", limit=3))) == 3
    assert asked == ["", "1"]
    asked.clear()
    assert list(pages(method, pb.ListPipelinesRequest(), "pipelines", limit=0)) == []
