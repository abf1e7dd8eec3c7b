"""Where code comes from: a repository, an archive, a built-in; and `penstock.run` in a real job."""

from __future__ import annotations

import asyncio
import io
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.algorithms import ModelCard
from penstock.jobs import warm
from penstock.jobs.result import Cause, JobState
from penstock.jobs.spec import Algorithm, Archive, Git, InputFile, JobInput
from penstock.objects import fetch_tree

from .conftest import Bench

TRAIN = """
import numpy as np
from onnx import TensorProto, helper
from penstock import run

table = run.inputs["train"].to_arrow()
assert run.inputs["train"].meta["label"] == "y", run.inputs["train"].meta
for step in range(run.params()["steps"]):
    run.log_metrics(loss=1.0 / (step + 1), step=step)
    assert not run.should_prune()
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
rows = np.array(table["a"].to_numpy()[:8], np.float32).reshape(-1, 1)
run.save_model(model.SerializeToString(), examples={"x": rows}, task="regression")
print("rows", table.num_rows)
"""


def table(bench: Bench) -> JobInput:
    content = io.BytesIO()
    columns = {"_key": [str(n) for n in range(40)], "a": np.arange(40.0), "y": [n % 2 for n in range(40)]}
    pq.write_table(pa.table({**columns, "_revision": [f"{n}/1" for n in range(40)]}), content)
    ref = bench.objects.put_bytes(content.getvalue())
    meta = {"dataset": "projects/p/datasets/d", "version": "1", "label": "y", "json_columns": []}
    return JobInput("train", (InputFile("part-00000.parquet", ref.digest, ref.size),), meta=meta)


def archived(bench: Bench, **files: str) -> str:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"src/{name}.py")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return bench.objects.put_bytes(packed.getvalue()).digest


async def test_own_code_from_an_archive_makes_a_model(bench: Bench, tmp_path: Path) -> None:
    digest = archived(bench, train=TRAIN)
    spec = bench.spec(
        "python",
        "src/train.py",
        code=Archive(digest),
        inputs=(table(bench),),
        parameters={"steps": 3},
        expects_model=True,
    )
    result = await bench.result(spec)
    assert (result.state, result.reason) == (JobState.SUCCEEDED, "")
    assert result.code == {"archive": digest}
    fetch_tree(bench.objects, result.model, tmp_path / "model")
    card = ModelCard.load(tmp_path / "model")
    assert card.task == "regression"
    onnx.load(str(tmp_path / "model" / "model.onnx"))
    assert [o.path for o in result.outputs] == ["model/model.json", "model/model.onnx"]


def make_repository(folder: Path) -> str:
    """A repository of one commit, which is returned."""
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "train.py").write_text("print('from git')")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("init", "--quiet"), ("add", "."), (*identity, "commit", "--quiet", "-m", "one")):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return head.stdout.strip()


async def test_own_code_from_a_repository_is_pinned(bench: Bench, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    head = make_repository(repository)
    code = Git(str(repository), subdirectory="src")
    spec = bench.spec("python", "train.py", code=code, allow_local_code=True)
    result = await bench.result(spec)
    assert result.state is JobState.SUCCEEDED
    assert result.code["commit"] == head
    assert (await bench.log(spec)).startswith("from git\n")
    refused = await bench.result(bench.spec("python", "train.py", code=code, job="refused"))
    assert (refused.state, refused.cause) == (JobState.FAILED, Cause.CODE)


@pytest.mark.parametrize(
    "code", [Archive("sha256:" + "0" * 64), Git("https://127.0.0.1/x"), Git("http://example.org/x")]
)
async def test_code_that_cannot_be_had_says_so(bench: Bench, code: Archive | Git) -> None:
    result = await bench.result(bench.spec("true", code=code))
    assert (result.state, result.cause, result.exit_code) == (JobState.FAILED, Cause.CODE, None)
    assert result.reason


async def test_a_built_in_makes_the_same_model_cold_and_warm(bench: Bench) -> None:
    spec = bench.spec(code=Algorithm("logistic-regression"), inputs=(table(bench),), expects_model=True)
    cold = await bench.result(spec)
    assert (cold.state, cold.reason) == (JobState.SUCCEEDED, "")
    bench.executor = bench.again()
    await bench.executor.prepare()
    await wait_until_warm(bench)
    again = await bench.result(replace(spec, job="warm", output_prefix="projects/p/runs/warm/attempts/1"))
    assert (again.state, again.reason) == (JobState.SUCCEEDED, "")
    first, second = ({o.path: o.digest for o in result.outputs} for result in (cold, again))
    assert first["model/model.onnx"] == second["model/model.onnx"]


async def wait_until_warm(bench: Bench) -> None:
    deadline = time.monotonic() + 60
    while not await asyncio.to_thread(warm.ask, bench.warm, b"/nowhere"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
