"""A command as its author meets it: files and variables in, results, logs and clear reasons out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from penstock.errors import FailedPrecondition, InvalidArgument
from penstock.jobs.executor import Phase
from penstock.jobs.result import Cause, JobState
from penstock.jobs.spec import InputFile, JobInput, Report, Resources
from penstock.objects import fetch_tree, put_tree, read_tree
from penstock.runner import isolation
from tests.support.served_models import scaling_model

from .conftest import Bench

CONTRACT = """
import json, os, pathlib
env = os.environ
print(pathlib.Path(env["PENSTOCK_INPUT_DIR"], "train", "part-0.parquet").read_text())
print(json.load(open(env["PENSTOCK_INPUT_DIR"] + "/train/input.json"))["label"])
print(pathlib.Path(env["PENSTOCK_INPUT_DIR"], "base", "model.onnx").read_text())
print(json.load(open(env["PENSTOCK_PARAMS"])))
out = pathlib.Path(env["PENSTOCK_OUTPUT_DIR"], "deep")
out.mkdir()
(out / "report.txt").write_text("done")
open(env["PENSTOCK_METRICS"], "a").write('{"name": "loss", "value": 0.5, "step": 1}')
pathlib.Path(env["PENSTOCK_CHECKPOINT_DIR"], "state").write_text("epoch 7")
print(env["GREETING"])
"""


async def test_a_command_gets_its_files_and_leaves_outputs(bench: Bench, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_text("weights")
    part = bench.objects.put_bytes(b"rows")
    spec = bench.spec(
        "python", "-c", CONTRACT,
        inputs=(JobInput("train", (InputFile("part-0.parquet", part.digest, part.size),), meta={"label": "y"}),),
        base_model=put_tree(bench.objects, tmp_path / "model").digest,
        parameters={"rate": 0.1},
        env={"GREETING": "hello"},
    )  # fmt: skip
    result = await bench.result(spec)
    assert (result.state, result.cause, result.reason, result.exit_code) == (JobState.SUCCEEDED, "", "", 0)
    assert (await bench.log(spec)).splitlines()[:5] == ["rows", "y", "weights", "{'rate': 0.1}", "hello"]
    assert [o.path for o in result.outputs] == ["deep/report.txt"]
    assert bench.objects.get_bytes(result.outputs[0].digest) == b"done"
    assert bench.objects.get_bytes(result.log.digest).decode() == await bench.log(spec)
    [batch] = [json.loads(line) for line in bench.objects.get_bytes(result.metrics.digest).splitlines()]
    assert batch["batch_id"] == 1
    assert [(p["name"], p["step"], p["value"]) for p in batch["points"]] == [("loss", 1, 0.5)]
    assert result.environment["python"] == sys.version.split()[0]
    assert any(package.startswith("numpy==") for package in result.environment["packages"])
    assert result.started <= result.finished


async def test_the_next_attempt_finds_the_checkpoint(bench: Bench) -> None:
    await bench.result(bench.shell("echo 7 > $PENSTOCK_CHECKPOINT_DIR/epoch; exit 1"))
    spec = bench.shell("cat $PENSTOCK_CHECKPOINT_DIR/epoch", attempt=2)
    await bench.result(spec)
    assert (await bench.log(spec)).startswith("7\n")


async def test_a_failing_command_is_told_with_its_last_lines(bench: Bench) -> None:
    spec = bench.shell("seq 1 30; echo 'the disk is on fire' >&2; exit 3")
    result = await bench.result(spec)
    assert (result.state, result.cause, result.exit_code) == (JobState.FAILED, Cause.EXIT_CODE, 3)
    assert result.reason.startswith("The command ended with exit code 3.\nIts last lines:\n12\n13\n")
    assert result.log_tail == (*map(str, range(12, 31)), "the disk is on fire")


async def test_a_command_that_is_not_there_says_so(bench: Bench) -> None:
    result = await bench.result(bench.spec("no-such-program"))
    assert (result.state, result.exit_code) == (JobState.FAILED, 127)
    assert "cannot start 'no-such-program': No such file or directory" in result.reason


async def test_no_command_at_all_says_so(bench: Bench) -> None:
    result = await bench.result(bench.spec())
    assert (result.state, result.cause, result.exit_code) == (JobState.FAILED, Cause.CODE, None)
    assert "no command" in result.reason


async def test_a_run_that_writes_no_model_has_failed(bench: Bench) -> None:
    result = await bench.result(bench.shell("echo x > $PENSTOCK_OUTPUT_DIR/notes", expects_model=True))
    assert (result.state, result.cause, result.exit_code) == (JobState.FAILED, Cause.MODEL, 0)
    assert "wrote no model/model.onnx and no model/model.json" in result.reason
    assert [o.path for o in result.outputs] == ["notes"]


async def test_a_model_that_cannot_be_used_has_failed(bench: Bench) -> None:
    script = (
        'mkdir $PENSTOCK_OUTPUT_DIR/model; cd $PENSTOCK_OUTPUT_DIR/model; echo x > model.onnx; echo "{}" > model.json'
    )
    result = await bench.result(bench.shell(script, expects_model=True))
    assert (result.state, result.cause) == (JobState.FAILED, Cause.MODEL)
    assert "cannot be used" in result.reason


async def test_a_model_directory_with_other_files_has_failed(bench: Bench, tmp_path: Path) -> None:
    (scaling_model(tmp_path / "made", 2.0) / "__init__.py").write_text("")
    tree = put_tree(bench.objects, tmp_path / "made").digest
    spec = bench.shell("cp -r $PENSTOCK_INPUT_DIR/base $PENSTOCK_OUTPUT_DIR/model", base_model=tree, expects_model=True)
    result = await bench.result(spec)
    assert (result.state, result.cause) == (JobState.FAILED, Cause.MODEL)
    assert "'__init__.py' has no place in a model directory" in result.reason


async def test_model_files_are_a_tree_of_their_own(bench: Bench, tmp_path) -> None:  # type: ignore[no-untyped-def]
    result = await bench.result(
        bench.shell("mkdir $PENSTOCK_OUTPUT_DIR/model; echo x > $PENSTOCK_OUTPUT_DIR/model/model.onnx")
    )
    assert [f.path for f in read_tree(bench.objects, result.model).files] == ["model.onnx"]
    fetch_tree(bench.objects, result.model, tmp_path / "copy")
    assert (tmp_path / "copy" / "model.onnx").read_text() == "x\n"


async def test_an_output_that_is_a_link_is_refused(bench: Bench) -> None:
    (bench.home / "secret").write_text("the key")
    result = await bench.result(bench.shell(f"ln -s {bench.home}/secret $PENSTOCK_OUTPUT_DIR/gift"))
    assert (result.state, result.cause) == (JobState.FAILED, Cause.OUTPUTS)
    assert "'gift' is not a regular file" in result.reason
    assert result.outputs == ()


async def test_an_output_folder_that_is_a_link_is_refused(bench: Bench) -> None:
    result = await bench.result(bench.shell("ln -s /etc $PENSTOCK_OUTPUT_DIR/etc"))
    assert (result.state, result.cause, result.outputs) == (JobState.FAILED, Cause.OUTPUTS, ())


async def test_the_output_folder_replaced_by_a_link_is_refused(bench: Bench) -> None:
    result = await bench.result(bench.shell("rmdir $PENSTOCK_OUTPUT_DIR; ln -s /etc/init.d $PENSTOCK_OUTPUT_DIR"))
    assert (result.state, result.outputs) == (JobState.FAILED, ())


async def test_a_damaged_input_never_reaches_the_command(bench: Bench) -> None:
    part = bench.objects.put_bytes(b"rows")
    name = part.digest.removeprefix("sha256:")
    (bench.home / "objects" / "sha256" / name[:2] / name).write_bytes(b"r0ws")
    result = await bench.result(bench.shell("echo ran", inputs=(JobInput("train", (InputFile("p", part.digest),)),)))
    assert (result.state, result.cause, result.exit_code) == (JobState.FAILED, Cause.INPUTS, None)
    assert "damaged" in result.reason


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc"])
async def test_an_input_cannot_lie_elsewhere(bench: Bench, name: str) -> None:
    part = bench.objects.put_bytes(b"rows")
    for item in (JobInput(name, ()), JobInput("train", (InputFile(name, part.digest),))):
        result = await bench.result(bench.shell("echo ran", inputs=(item,), job=f"j{len(item.files)}"))
        assert (result.state, result.cause) == (JobState.FAILED, Cause.INPUTS)


async def test_the_command_sees_nothing_of_the_service(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN", "service-secret")
    report = Report("127.0.0.1:1", "runner-secret")
    spec = bench.shell("env; cat /proc/$PPID/cmdline /proc/$PPID/environ 2>&1; ls /proc/self/fd", report=report)
    await bench.ended(spec)
    log = await bench.log(spec)
    assert "secret" not in log
    assert "PENSTOCK_OUTPUT_DIR" in log
    stored = [p.read_bytes() for p in bench.home.rglob("*") if p.is_file() and p.name != "report.json"]
    assert not any(b"runner-secret" in content for content in stored)
    assert (bench.attempt(spec).folder / "report.json").stat().st_mode & 0o077 == 0


async def test_the_command_cannot_read_the_platforms_home(bench: Bench) -> None:
    (bench.home / "token").write_text("the key")
    spec = bench.shell(f"id -u; cat {bench.home}/token || echo closed; ls {bench.home}")
    result = await bench.result(spec)
    uid, *rest = (await bench.log(spec)).splitlines()
    if os.geteuid() == 0:
        assert int(uid) in isolation.USERS
        assert "the key" not in rest
        assert "closed" in rest
        assert "token" not in rest
    else:
        assert int(uid) == os.getuid()
        assert result.environment["isolation"] == isolation.NO_BOUNDARY


async def test_a_job_cannot_set_the_variables_of_the_contract(bench: Bench) -> None:
    result = await bench.result(bench.shell("true", env={"PENSTOCK_OUTPUT_DIR": "/etc"}))
    assert (result.state, result.cause) == (JobState.FAILED, Cause.CODE)
    assert "PENSTOCK_" in result.reason


async def test_cleanup_forgets_an_attempt_but_not_its_result(bench: Bench) -> None:
    spec = bench.shell("echo x > $PENSTOCK_OUTPUT_DIR/x")
    await bench.ended(spec)
    await bench.executor.cleanup(spec.ref, last=True)
    assert not (bench.root / spec.job).exists()
    await bench.executor.start(spec)
    assert (await bench.executor.observe(spec.ref)).phase is Phase.RESULT
    assert not (bench.root / spec.job).exists()


async def test_a_running_attempt_is_not_cleaned_up(bench: Bench) -> None:
    spec = bench.shell("echo up; sleep 60")
    await bench.executor.start(spec)
    await bench.log_with(spec, "up")
    with pytest.raises(FailedPrecondition):
        await bench.executor.cleanup(spec.ref, last=True)


@pytest.mark.parametrize("job", ["../x", "a/b", "", ".."])
async def test_a_jobs_id_is_no_path(bench: Bench, job: str) -> None:
    with pytest.raises(InvalidArgument):
        await bench.executor.start(bench.shell("true", job=job))


async def test_resources_are_told_to_numeric_libraries(bench: Bench) -> None:
    spec = bench.shell("echo $OMP_NUM_THREADS", resources=Resources(cpu=1.5))
    await bench.result(spec)
    assert (await bench.log(spec)).startswith("2\n")


async def test_no_library_of_a_job_reports_its_use(bench: Bench) -> None:
    spec = bench.shell("echo $ORT_DISABLE_TELEMETRY")
    await bench.result(spec)
    assert (await bench.log(spec)).startswith("1\n")
