"""Requests that are wrong: refused at once, by field, with nothing done."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.errors import FailedPrecondition, InvalidArgument, NotFound, PenstockError, ResourceExhausted
from penstock.rpc.structs import to_struct
from tests.support.training_platform import PARENT, TrainingPlatform, collect

MLP = pb.Code(algorithm="mlp")
ARCHIVE = pb.Code(archive="sha256:" + "0" * 64)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("run.dataset_version", {"dataset_version": ""}),
    ("run.dataset_version", {"dataset_version": "projects/vision/datasets/shapes"}),
    ("run.dataset_version", {"dataset_version": "projects/vision/datasets/shapes/versions/9"}),
    ("run.code", {"code": None}),
    ("run.code.algorithm", {"code": pb.Code(algorithm="magic")}),
    ("run.code.algorithm", {"code": pb.Code(algorithm="evaluate-classification")}),
    ("run.parameters.alpha", {"parameters": to_struct({"alpha": -1})}),
    ("run.parameters.depth", {"parameters": to_struct({"depth": 3})}),
    ("run.command", {"command": ["python", "train.py"]}),
    ("run.command", {"code": ARCHIVE}),
    ("run.code.archive", {"code": ARCHIVE, "command": ["true"]}),
    ("run.code.archive", {"code": pb.Code(archive="../etc"), "command": ["true"]}),
    ("run.code.git.url", {"code": pb.Code(git=pb.GitSource(url="http://x.org/r")), "command": ["true"]}),
    ("run.code.git.url", {"code": pb.Code(git=pb.GitSource(url="https://a:b@x.org/r")), "command": ["true"]}),
    ("run.code.git.url", {"code": pb.Code(git=pb.GitSource(url="https://127.0.0.1/r")), "command": ["true"]}),
    ("run.code.git.url", {"code": pb.Code(git=pb.GitSource(url="https://[::1")), "command": ["true"]}),
    ("run.code.git.url", {"code": pb.Code(git=pb.GitSource(url="https://x.org:port/r")), "command": ["true"]}),
    ("run.code.git.url", {"code": pb.Code(git=pb.GitSource(url="/nowhere/at/all")), "command": ["true"]}),
    (
        "run.code.git.subdirectory",
        {"code": pb.Code(git=pb.GitSource(url="https://x.org/r", subdirectory="../up")), "command": ["true"]},
    ),
    ("run.resources.cpu", {"resources": pb.Resources(cpu=512)}),
    ("run.resources.memory", {"resources": pb.Resources(memory=5)}),
    ("run.resources.memory", {"resources": pb.Resources(memory=1 << 50)}),
    ("run.model", {"model": "Not An Id"}),
    ("run.base", {"base": "projects/vision/models/none/versions/1"}),
    ("run.max_retries", {"max_retries": -1}),
    ("run.labels", {"labels": {"": "x"}}),
    ("run.trial", {"trial": "projects/vision/studies/s/trials/1"}),
]


@pytest.mark.parametrize(("field", "change"), CASES)
async def test_a_run_that_cannot_be_is_refused_by_its_field(
    platform: TrainingPlatform, version: str, field: str, change: dict[str, Any]
) -> None:
    await platform.start(reconcile=False)
    stub = platform.stub()
    run = pb.Run(**{"dataset_version": version, "code": MLP, **change})
    with pytest.raises(PenstockError) as refused:
        await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
    assert field in [violation.field for violation in refused.value.violations], refused.value.violations
    assert not (await stub.ListRuns(pb.ListRunsRequest(parent=PARENT))).runs


async def test_a_run_can_be_checked_without_being_queued(platform: TrainingPlatform, version: str) -> None:
    await platform.start(reconcile=False)
    stub = platform.stub()
    run = pb.Run(dataset_version=version, code=platform.code("true"), command=["true"])
    checked = await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run, validate_only=True))
    assert len(checked.code.git.commit) == 40
    run.model = "No"
    with pytest.raises(InvalidArgument):
        await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run, validate_only=True))
    assert not (await stub.ListRuns(pb.ListRunsRequest(parent=PARENT))).runs


async def test_all_complaints_come_at_once(platform: TrainingPlatform, version: str) -> None:
    await platform.start(reconcile=False)
    run = pb.Run(code=MLP, model="No", resources=pb.Resources(memory=1), parameters=to_struct({"epochs": 0}))
    with pytest.raises(InvalidArgument) as refused:
        await platform.stub().CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
    fields = {violation.field for violation in refused.value.violations}
    assert fields == {"run.dataset_version", "run.model", "run.resources.memory", "run.parameters.epochs"}


async def test_a_ref_that_does_not_exist_is_told_before_anything_runs(platform: TrainingPlatform, version: str) -> None:
    await platform.start(reconcile=False)
    code = platform.code("true")
    code.git.ref = "no-such-branch"
    run = pb.Run(dataset_version=version, code=code, command=["true"])
    with pytest.raises(NotFound) as refused:
        await platform.stub().CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
    assert refused.value.violations[0].field == "run.code.git.ref"


async def test_what_does_not_exist_is_not_found(platform: TrainingPlatform, version: str) -> None:
    await platform.start(reconcile=False)
    stub = platform.stub()
    run, model = f"{PARENT}/runs/r1", f"{PARENT}/models/m"
    for call in (
        stub.GetRun(pb.GetRunRequest(name=run)),
        stub.CancelRun(pb.CancelRunRequest(name=run)),
        stub.ListMetrics(pb.ListMetricsRequest(name=run)),
        stub.GetModel(pb.GetModelRequest(name=model)),
        stub.GetModelVersion(pb.GetModelVersionRequest(name=f"{model}/versions/1")),
        stub.CreateModelVersion(pb.CreateModelVersionRequest(parent=model, run=run)),
        collect(stub.WatchRun(pb.WatchRunRequest(name=run))),
        collect(stub.ReadLog(pb.ReadLogRequest(name=run))),
        collect(stub.ReadModelFile(pb.ReadModelFileRequest(name=f"{model}/versions/1", path="model.onnx"))),
    ):
        with pytest.raises(NotFound):
            await call
    queued = await platform.submit_built_in(stub, version)
    with pytest.raises(FailedPrecondition, match="QUEUED"):
        await stub.CreateModelVersion(pb.CreateModelVersionRequest(parent=model, run=queued))


async def test_runs_are_listed_newest_first_by_state_and_version(platform: TrainingPlatform, version: str) -> None:
    await platform.start(reconcile=False)
    stub = platform.stub()
    names = [await platform.submit_built_in(stub, version) for _ in range(5)]
    await stub.CancelRun(pb.CancelRunRequest(name=names[2]))
    first = await stub.ListRuns(pb.ListRunsRequest(parent=PARENT, page_size=3))
    rest = await stub.ListRuns(pb.ListRunsRequest(parent=PARENT, page_size=3, page_token=first.next_page_token))
    assert [run.name for run in (*first.runs, *rest.runs)] == names[::-1] and not rest.next_page_token
    cancelled = await stub.ListRuns(pb.ListRunsRequest(parent=PARENT, state=pb.Run.CANCELLED))
    assert [run.name for run in cancelled.runs] == [names[2]]
    assert len((await stub.ListRuns(pb.ListRunsRequest(parent=PARENT, dataset_version=version))).runs) == 5


def packed(*members: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """A gzipped tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def link() -> tarfile.TarInfo:
    """A symbolic link out of the archive."""
    member = tarfile.TarInfo("link")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return member


async def test_an_archive_of_code_is_kept_by_its_digest_and_runs(platform: TrainingPlatform, version: str) -> None:
    await platform.start()
    stub = platform.stub()
    data = packed(tarfile.TarInfo("./train.sh"), content=b"echo from the archive\n")
    request = pb.CreateCodeArchiveRequest(parent=PARENT, data=data)
    first, second = await stub.CreateCodeArchive(request), await stub.CreateCodeArchive(request)
    assert first == second and first.size == len(data)
    run = pb.Run(dataset_version=version, code=pb.Code(archive=first.digest), command=["sh", "train.sh"])
    made = await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
    seen = await collect(stub.WatchRun(pb.WatchRunRequest(name=made.name)))
    assert seen[-1].state == pb.Run.SUCCEEDED


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidArgument),
        (b"no archive", InvalidArgument),
        (packed(tarfile.TarInfo("a"), content=b"x" * 100)[:-30], InvalidArgument),
        (packed(tarfile.TarInfo("../up")), InvalidArgument),
        (packed(tarfile.TarInfo("/etc/passwd")), InvalidArgument),
        (packed(link()), InvalidArgument),
        (packed(tarfile.TarInfo("zeros"), content=bytes(64 << 20)), ResourceExhausted),
    ],
    ids=["empty", "no tar", "cut", "parent", "absolute", "link", "bomb"],
)
async def test_what_no_job_could_unpack_is_not_kept(
    platform: TrainingPlatform, data: bytes, error: type[PenstockError]
) -> None:
    await platform.start(reconcile=False)
    with pytest.raises(error) as refused:
        await platform.stub().CreateCodeArchive(pb.CreateCodeArchiveRequest(parent=PARENT, data=data))
    assert refused.value.violations[0].field == "data"
    assert not list((platform.root / "objects").rglob("sha256/*/*"))
