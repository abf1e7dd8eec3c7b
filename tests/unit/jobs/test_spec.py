"""Specifications and results as JSON."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from penstock.errors import DataCorrupt, InvalidArgument
from penstock.jobs.result import Cause, JobResult, JobState, Output
from penstock.jobs.spec import Algorithm, Archive, Code, Git, InputFile, JobInput, JobSpec, Report, Resources
from penstock.objects import ObjectRef


@pytest.mark.parametrize(
    "code", [None, Algorithm("mlp"), Git("https://host/x", "main", "a" * 40, "src"), Archive("sha256:0", "x")]
)
def test_a_spec_survives_json(code: Code | None) -> None:
    spec = JobSpec(
        job="r1",
        resource="projects/p/runs/r1",
        project="p",
        attempt=2,
        output_prefix="projects/p/runs/r1/attempts/2",
        code=code,
        command=("python", "train.py"),
        parameters={"rate": 0.1, "layers": [1, 2], "nested": {"a": None}},
        inputs=(
            JobInput("train", (InputFile("part-0.parquet", "sha256:1", 3),), "sha256:2", {"label": "y"}),
            JobInput("x"),
        ),
        resources=Resources(cpu=1.5, memory=1 << 30, timeout=60),
        env={"A": "b"},
    )
    assert JobSpec.from_json(spec.to_json()) == spec
    assert spec.ref.result_key == "projects/p/runs/r1/attempts/2/result.json"


def test_a_token_is_in_no_json_and_no_repr() -> None:
    spec = JobSpec("r", "projects/p/runs/r", "p", 1, "x", report=Report("host:1", "s3cret"))
    assert "s3cret" not in spec.to_json()
    assert "s3cret" not in repr(spec)
    assert JobSpec.from_json(spec.to_json()).report is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"code": {"kind": "magic"}}', "null"])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="specification"):
        JobSpec.from_json(text)


@pytest.mark.parametrize("log", [None, ObjectRef("sha256:0", 5)])
def test_a_result_survives_json(log: ObjectRef | None) -> None:
    result = JobResult(
        JobState.FAILED,
        datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        datetime(2026, 1, 2, 3, 4, 6, 0, UTC),
        cause=Cause.MEMORY,
        reason="Out of memory: …",
        exit_code=137,
        log_tail=("a", "ü"),
        outputs=(Output("x", "sha256:1", 2),),
        model="sha256:3",
        log=log,
        code={"commit": "abc"},
        environment={"packages": ["a==1"]},
    )
    assert JobResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"state": "SUCCEEDED"'])
def test_a_torn_result_is_told_as_such(text: bytes) -> None:
    with pytest.raises(DataCorrupt):
        JobResult.from_json(text)
