"""Triton as a user of its own: requests that nobody else reads, and little that a model could reach through it."""

from __future__ import annotations

import asyncio
import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penstock.backing import triton
from penstock.backing.process import ManagedProcess
from penstock.backing.sandbox import USERS
from penstock.backing.triton import TritonInstance
from penstock.backing.triton_environment import TritonEnvironment
from penstock.backing.triton_repository import write_repository
from tests.integration.backing.onnx_models import identity_model, reciprocal_table
from tests.integration.backing.tritons import infer, lookup, new_instance, tensor

ROOT = os.geteuid() == 0  # without it a server has no user of its own


def _holding(process: ManagedProcess, x: float, view: Path) -> list[Path]:
    """The regions of its shared memory in which x is found, in a view of the disk."""
    regions = [path for path in (view / "dev/shm").iterdir() if path.name.startswith(str(process.facts["shm_prefix"]))]
    return [path for path in regions if struct.pack("<d", x) in path.read_bytes()]


@pytest.mark.parametrize("mechanism", ["a memory of its own", "closed once it has started", "none"])
async def test_nobody_else_reads_requests_in_shared_memory(
    home: Path, triton_environment: TritonEnvironment, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    """The first is for platforms that are root; the last one is the negative control."""
    if mechanism != "a memory of its own":
        monkeypatch.setattr(triton, "_sandbox", lambda *_: None)
    instance = new_instance(home, triton_environment, identity_model(home / "model", ["FP64"]))
    with monkeypatch.context() as patched:
        if mechanism == "none":
            patched.setattr(triton, "_regions", lambda _: [])
        process = await instance.start(attached=True)
    assert (await infer(instance, [tensor("in_FP64", "FP64", [1, 2], [31337.25, 1.0])]))[0] == 200
    assert _holding(process, 31337.25, Path(f"/proc/{process.identity.pid}/root"))  # the search finds it
    seen = [path.stat().st_mode & 0o077 for path in _holding(process, 31337.25, Path("/"))]
    await instance.remove(grace=0)
    if mechanism == "a memory of its own" and ROOT:
        assert seen == []
    else:
        assert seen == [0o044 if mechanism == "none" else 0]


SPY = """
import json, os
found = {"uid": os.getuid(), "read": []}
for path in %r:
    try:
        found["read"].append([path, open(path, "rb").read(6).decode()])
    except OSError:
        pass
try:
    os.kill(%d, 0)
    found["read"].append(["signal", ""])
except OSError:
    pass
with open(%r, "w") as file:
    json.dump(found, file)
"""


@pytest.mark.parametrize("confined", [True, False])
async def test_a_model_that_took_its_server_over_would_find_nothing(
    home: Path, triton_environment: TritonEnvironment, monkeypatch: pytest.MonkeyPatch, confined: bool
) -> None:
    """As if some fault let it run code there. The second round is the negative control."""
    if not confined:
        monkeypatch.setattr(triton, "_sandbox", lambda *_: None)
    folder = home / "serving" / "p" / "e" / "1"
    others = home / "serving" / "q" / "e" / "1" / "model.onnx"
    for path in (home / "token", others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    (home / "answers").mkdir()
    files, answer = reciprocal_table(folder / "model"), Path(f"/tmp/penstock-spy-{os.getpid()}")
    repository = write_repository(folder / "repository", "m", files)
    relative = ["../../../../../token", "../../../../q/e/1/model.onnx", "../../../../../../home/token"]
    targets = [str(home / "token"), str(others), f"/proc/{os.getppid()}/environ", *relative]
    (repository / "m" / "1" / "__init__.py").write_text(SPY % (targets, os.getpid(), str(answer)))
    instance = TritonInstance(home, "triton-1", triton_environment, repository, files, "m")
    try:
        await instance.start(attached=True)
        assert (await lookup(instance, 1))[1]["outputs"][0]["data"] == [0.5]
        found = json.loads(await asyncio.to_thread(answer.read_text))
    finally:
        await instance.remove(grace=0)
        await asyncio.to_thread(answer.unlink)
    read = {path for path, _ in found["read"]}
    if confined and ROOT:
        assert found["uid"] in USERS and read == set()
    else:
        assert {str(home / "token"), str(others), *relative, "signal"} <= read


async def test_two_servers_are_two_users(home: Path, triton_environment: TritonEnvironment) -> None:
    files = reciprocal_table(home / "model")
    instances = [new_instance(home, triton_environment, files, name) for name in ("triton-1", "triton-2")]
    processes = [await instance.start(attached=True) for instance in instances]
    users = [os.stat(f"/proc/{process.identity.pid}").st_uid for process in processes]
    for instance in instances:
        await instance.remove(grace=0)
    assert (len(set(users)) == 2 and all(user in USERS for user in users)) or not ROOT


async def test_where_it_cannot_be_a_user_of_its_own_it_serves_all_the_same_and_says_so(
    home: Path, triton_environment: TritonEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = triton._sandbox

    def unreadable(*arguments: Any) -> Any:
        found = whole(*arguments)
        return found and replace(found, probes=[home / "not there"])

    monkeypatch.setattr(triton, "_sandbox", unreadable)
    instance = new_instance(home, triton_environment, reciprocal_table(home / "model"))
    process = await instance.start(attached=True)
    assert (await lookup(instance, 1))[0] == 200
    assert os.stat(f"/proc/{process.identity.pid}").st_uid == os.getuid()
    assert ("there is no boundary" in process.log_tail(100)) == ROOT
    await instance.remove(grace=0)
