"""Generated pages are what the code gives, say all that there is, and `--check` notices when they are not."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pool

from penstock.algorithms.catalogue import CATALOGUE
from penstock.errors import InvalidArgument
from penstock.events.external_form import decode_external
from penstock.events.registry import EVENT_TYPES
from penstock.events.subjects import subject_of
from penstock.runtime.host import api_services

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = ("api.md", "cli.md", "events.md", "algorithms.md", "settings.md")


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCS / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages, generated into a folder of their own."""
    folder = tmp_path_factory.mktemp("docs")
    assert generate("--to", str(folder)).returncode == 0
    return folder


@pytest.fixture(scope="module")
def asyncapi() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    return document


@pytest.fixture
def docgen() -> Iterator[ModuleType]:
    """The module of the settings page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("docgen.settings")


def test_the_committed_pages_are_in_step() -> None:
    done = generate("--check")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_page_that_was_edited_or_lost_is_named(made: Path, tmp_path: Path) -> None:
    for source in made.rglob("*"):
        if source.is_file():
            target = tmp_path / source.relative_to(made)
            target.parent.mkdir(exist_ok=True, parents=True)
            target.write_bytes(source.read_bytes())
    assert generate("--check", "--to", str(tmp_path)).returncode == 0
    (tmp_path / "reference" / "events.md").write_text("edited")
    (tmp_path / "asyncapi.yaml").unlink()
    done = generate("--check", "--to", str(tmp_path))
    assert done.returncode == 1
    assert "reference/events.md" in done.stdout
    assert "asyncapi.yaml" in done.stdout
    assert "reference/api.md" not in done.stdout


def test_every_method_of_every_service_is_told_with_its_route() -> None:
    text = (DOCS / "reference" / "api.md").read_text()
    pool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    for name in api_services():
        assert f"## {name}\n" in text
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        for method in pool.FindServiceByName(name).methods:
            told = section.split(f"### {method.name}\n")[1].split("### ")[0]
            assert "/v1/" in told
            assert "- access: " in told


def test_every_type_of_event_is_told() -> None:
    text = (DOCS / "reference" / "events.md").read_text()
    assert [type for type in EVENT_TYPES if f"### {type}\n" not in text] == []


def test_every_algorithm_and_parameter_is_told() -> None:
    text = (DOCS / "reference" / "algorithms.md").read_text()
    for name, algorithm in CATALOGUE.items():
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        assert [p.name for p in algorithm.parameters if f"- `{p.name}` (" not in section] == []


def test_a_variable_that_the_page_does_not_tell_fails_the_page(
    docgen: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docgen, "SECTIONS", docgen.SECTIONS[:-1])
    with pytest.raises(ValueError, match="PENSTOCK_INPUT_DIR"):
        docgen.page()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_all_references_of_the_asyncapi_file_lead_somewhere(asyncapi: dict[str, Any]) -> None:
    found = list(references(asyncapi))
    assert len(found) > 4 * len(EVENT_TYPES)
    for reference in found:
        place: Any = asyncapi
        for word in reference.removeprefix("#/").split("/"):
            assert word in place, reference
            place = place[word]


def test_the_asyncapi_file_has_the_subject_and_body_of_every_type(asyncapi: dict[str, Any]) -> None:
    assert asyncapi["asyncapi"] == "3.0.0"
    subjects = {"dataset.version.committed": "projects/p/datasets/d", "training.run.succeeded": "projects/p/runs/r"}
    for type, resource in subjects.items():
        address = asyncapi["channels"][type]["address"]
        assert address.format(project="p", id=resource.rsplit("/", 1)[1]) == subject_of(resource, type)
    for type, found in EVENT_TYPES.items():
        message = asyncapi["components"]["messages"][type]
        assert message["name"] == found.full
        schema = asyncapi["components"]["schemas"][found.message.DESCRIPTOR.name]
        assert set(schema["properties"]) == {field.json_name for field in found.message.DESCRIPTOR.fields}


def external(asyncapi: dict[str, Any]) -> tuple[str, dict[str, str], list[str]]:
    """A subject, headers and the required ones, as somebody reads them off the file."""
    subject = asyncapi["channels"]["external"]["address"].format(project="p", source="lab", event="scan.done")
    schema = asyncapi["components"]["messages"]["external"]["headers"]
    given = {name: rule.get("const", "x") for name, rule in schema["properties"].items() if name in schema["required"]}
    return subject, given, schema["required"]


def test_an_event_with_what_the_asyncapi_file_requires_is_taken(asyncapi: dict[str, Any]) -> None:
    subject, headers, _ = external(asyncapi)
    event = decode_external(subject, headers, b'{"count": 1}')
    assert (event.project, event.data) == ("p", {"count": 1})


def test_an_event_without_one_of_them_is_not(asyncapi: dict[str, Any]) -> None:
    subject, headers, required = external(asyncapi)
    for name in required:
        with pytest.raises(InvalidArgument):
            decode_external(subject, {key: value for key, value in headers.items() if key != name}, b"{}")


@pytest.mark.parametrize("page", [*(f"reference/{name}" for name in PAGES), "asyncapi.yaml"])
def test_generated_pages_say_so(page: str) -> None:
    assert "Generated by docs/generate.py" in (DOCS / page).read_text()
