"""Documents that people write: what is wrong is named, and what is right arrives as it was meant."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import InvalidArgument
from penstock.rpc.structs import from_struct
from penstock.sdk.code import pack
from penstock.sdk.documents import parse_duration
from penstock.sdk.pipelines import parse_pipeline
from penstock.sdk.references import versioned
from penstock.sdk.studies import parse_study


class NoPlatform:
    """A client of which only names are asked."""

    def name(self, kind: str, *ids: Any) -> str:
        from penstock import names

        return names.build(kind, "vision", *ids)

    def dataset(self, id: str) -> Any:
        class Dataset:
            def version_name(self, number: int | None) -> str:
                return f"projects/vision/datasets/{id}/versions/{number or 9}"

        return Dataset()


CLIENT: Any = NoPlatform()
PIPELINE: dict[Any, Any] = {
    "kind": "Pipeline",
    "name": "retrain",
    True: {"event": "dataset.version.committed", "debounce": {"quiet": "2s", "max_wait": "1m"}},
    "steps": [
        {"id": "train", "train": {"dataset": "digits", "algorithm": "mlp", "parameters": {"depth": 3}}},
        {"evaluate": {"model": "m", "dataset": "d@2", "since": date(2026, 11, 20)}, "if": True},
    ],
}
STUDY: dict[str, Any] = {
    "kind": "Study", "dataset": "digits@3", "algorithm": "mlp", "trials": 8, "sampler": {"kind": "random", "seed": 7},
    "space": {"rate": {"float": [0.001, 1], "log": True}, "depth": {"int": [2, 8]}, "kind": {"categorical": ["a", 2]}},
    "objective": {"metric": "accuracy"}, "resources": {"cpu": 2, "memory": 1073741824},
}  # fmt: skip


def test_a_pipeline_is_read_as_it_was_meant() -> None:
    made = parse_pipeline(CLIENT, PIPELINE)
    assert made.name == "projects/vision/pipelines/retrain"
    assert (made.trigger.debounce.quiet.seconds, made.trigger.debounce.max_wait.seconds) == (2, 60)
    train, evaluate = made.steps
    assert from_struct(getattr(train, "with"))["parameters"] == {"depth": 3}
    assert (evaluate.id, evaluate.action, evaluate.condition) == ("evaluate", "evaluate", "true")
    assert from_struct(getattr(evaluate, "with"))["since"] == "2026-11-20"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "Study"}, "kind"),
        ({"name": "Not An Id"}, "name"),
        ({"step": []}, "step"),
        ({"steps": []}, "steps"),
        ({"steps": "train"}, "steps"),
        ({"steps": [{"fly": {}}]}, "steps[0]"),
        ({"steps": ["train"]}, "steps[0]"),
        ({"steps": [{"train": {}, "tune": {}}]}, "steps[0]"),
        ({"steps": [{"train": ["digits"]}]}, "steps[0].train"),
        ({"steps": [{"train": {"x": float("nan")}}]}, "steps[0].train.x"),
        ({"steps": [{"train": {}, "if": []}]}, "steps[0].if"),
        ({True: None}, "on.event"),
        ({True: {"event": "a.b", "filters": "x"}}, "on.filters"),
        ({True: {"event": "a.b", "debounce": {"quiet": "2s"}}}, "on.debounce"),
        ({True: {"event": "a.b", "debounce": {"quiet": "soon", "max_wait": "1m"}}}, "on.debounce.quiet"),
        ({"max_recurrence": "often"}, "max_recurrence"),
        ({"max_recurrence": -1}, "max_recurrence"),
        ({"paused": "no"}, "paused"),
    ],
)
def test_a_wrong_pipeline_names_the_field(change: dict[Any, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_pipeline(CLIENT, {**PIPELINE, **change})
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize("document", [None, [], "text", 7, {"kind": None}])
def test_what_is_no_document_is_refused(document: Any) -> None:
    for parse in (parse_pipeline, parse_study):
        with pytest.raises(InvalidArgument) as caught:
            parse(CLIENT, document)
        assert caught.value.violations[0].field == "kind"


def test_a_study_is_read_as_it_was_meant() -> None:
    id, made = parse_study(CLIENT, {**STUDY, "command": "sh run.sh 'a b'"})
    assert id == ""
    assert made.dataset_version == "projects/vision/datasets/digits/versions/3"
    assert [p.name for p in made.space] == ["rate", "depth", "kind"]
    assert made.space[0].float.log
    assert (made.space[1].int.low, made.space[1].int.high) == (2, 8)
    assert [v.WhichOneof("kind") for v in made.space[2].categorical.values] == ["string_value", "number_value"]
    assert (made.max_trials, made.parallelism, made.sampler.seed, made.model) == (8, 1, 7, "digits")
    assert list(made.command) == ["sh", "run.sh", "a b"]
    assert (made.resources.cpu, made.resources.memory) == (2, 1073741824)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"trial": 3}, "trial"),
        ({"dataset": None}, "dataset"),
        ({"dataset": "digits@x"}, "dataset"),
        ({"dataset": ["digits"]}, "dataset"),
        ({"algorithm": None}, "algorithm"),
        ({"code": "."}, "algorithm"),
        ({"trials": "many"}, "trials"),
        ({"trials": 2.5}, "trials"),
        ({"trials": True}, "trials"),
        ({"trials": 10**400}, "trials"),
        ({"trials": "9" * 5000}, "trials"),
        ({"trials": float("nan")}, "trials"),
        ({"parallelism": None}, "parallelism"),
        ({"space": {}}, "space"),
        ({"space": {"x": 3}}, "space.x"),
        ({"space": {"x": {"float": [1]}}}, "space.x"),
        ({"space": {"x": {"float": [0, float("inf")]}}}, "space.x"),
        ({"space": {"x": {"int": [0.5, 2]}}}, "space.x"),
        ({"space": {"x": {"int": [0, 2**63]}}}, "space.x"),
        ({"space": {"x": {"float": [0, 10**400]}}}, "space.x"),
        ({"space": {"x": {"int": [0, 2], "log": "yes"}}}, "space.x.log"),
        ({"space": {"x": {"categorical": []}}}, "space.x"),
        ({"space": {"x": {"categorical": [date(2026, 1, 1)]}}}, "space.x.categorical[0]"),
        ({"objective": {"metric": "a", "direction": "up"}}, "objective"),
        ({"objective": "accuracy"}, "objective"),
        ({"sampler": "tpe"}, "sampler"),
        ({"sampler": {"kind": "grid"}}, "sampler.kind"),
        ({"sampler": {"seed": "x"}}, "sampler.seed"),
        ({"parameters": [1]}, "parameters"),
        ({"command": 7}, "command"),
        ({"command": "sh 'x"}, "command"),
        ({"resources": {"gpus": 1}}, "resources.gpus"),
        ({"resources": {"memory": 10**30}}, "resources.memory"),
        ({"resources": {"timeout": "soon"}}, "resources.timeout"),
        ({"resources": 3}, "resources"),
    ],
)
def test_a_wrong_study_names_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_study(CLIENT, {**STUDY, **change})
    assert caught.value.violations[0].field == field


@pytest.mark.parametrize(("text", "milliseconds"), [("500ms", 500), ("2s", 2000), ("1.5m", 90_000), (3, 3000), (0, 0)])
def test_durations(text: Any, milliseconds: int) -> None:
    assert parse_duration(text, "x").ToMilliseconds() == milliseconds


@pytest.mark.parametrize(
    "text", ["", "-1s", "5", "1 h", -1, float("inf"), float("nan"), True, None, "9" * 30 + "d", 10**400]
)
def test_what_is_no_duration_is_refused(text: Any) -> None:
    with pytest.raises(InvalidArgument):
        parse_duration(text, "x")


@pytest.mark.parametrize(("text", "parts"), [("digits@3", ("digits", 3)), ("digits", ("digits", None))])
def test_versions_as_they_are_typed(text: str, parts: tuple[str, int | None]) -> None:
    assert versioned(text, "dataset") == parts


@pytest.mark.parametrize("text", ["digits@", "digits@0", "digits@-1", "digits@x", "@3", "digits@3@4", "digits@٣"])
def test_what_is_no_version_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgument, match="@3") as caught:
        versioned(text, "dataset")
    assert caught.value.violations[0].field == "dataset"


def test_a_folder_is_packed_alike_each_time_and_without_what_it_skips(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("x")
    first = pack(tmp_path)
    (tmp_path / "a.py").touch()
    assert pack(tmp_path) == first
    (tmp_path / "__pycache__" / "b.pyc").write_text("y")
    assert pack(tmp_path) == first


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InvalidArgument) as caught:
            pack(folder)
        assert caught.value.violations[0].field == "code"
