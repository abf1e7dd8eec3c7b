"""Code of users, running: what it finds when it looks around for what is not its own, and what it leaves."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import bson
import pytest

from penstock.api.training.v1 import training_service_pb2 as pb
from penstock.sdk.code import pack
from penstock.sdk.following import wait
from tests.support.attacker import Victim
from tests.support.rivals import SAME, Rival

SCRIPTS = Path(__file__).parents[1] / "support" / "jobs"
Rivals = tuple[Rival, Rival]


def hello() -> bytes:
    """A message that any MongoDB answers."""
    body = b"\0\0\0\0\0" + bson.encode({"hello": 1, "$db": "admin"})
    return struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body


@pytest.fixture(scope="module")
def found(rivals: Rivals, victim: Victim, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a spy finds that an editor sends as code."""
    folder = tmp_path_factory.mktemp("spy")
    (folder / "spy.py").write_bytes((SCRIPTS / "spy.py").read_bytes())
    red = rivals[0]
    records = {path.stem: json.loads(path.read_text()) for path in (victim.home / "run").glob("*.json")}
    ports = {name: record["facts"]["port"] for name, record in records.items() if record["facts"].get("port")}
    ports["admin"] = records["envoy"]["facts"]["admin_port"]
    sent = pb.CreateCodeArchiveRequest(parent=red.name, data=pack(folder))
    digest = red.client.training.CreateCodeArchive(sent).digest
    pids = ",".join(str(record["pid"]) for record in records.values())
    words = (str(victim.home), pids, json.dumps(ports), hello().hex())
    run = red.train(pb.Code(archive=digest), "python", "spy.py", *words)
    assert run.state == pb.Run.SUCCEEDED, run.reason
    asked = pb.ReadArtifactRequest(name=run.name, path="found.json")
    content = b"".join(part.data for part in red.client.training.ReadArtifact(asked))
    answer: dict[str, Any] = json.loads(content)
    return answer | {"run": run, "home": str(victim.home)}


def test_code_runs_as_a_user_of_its_own_where_the_platform_can(found: dict[str, Any]) -> None:
    """Where the platform is no root it cannot, and the run's environment says that there is no boundary."""
    isolation = dict(found["run"].environment).get("isolation", "")
    if os.geteuid() == 0:
        assert found["uid"] not in (0, os.geteuid()) and "a user of its own" in isolation
    else:
        assert "none" in isolation


def test_code_reads_nothing_of_the_platform_and_of_other_runs(found: dict[str, Any]) -> None:
    if os.geteuid() == 0:
        assert found["readable"] == [] and found["writable"] == [] and found["signals"] == []


def test_code_finds_no_credential_in_environments_arguments_or_descriptors(found: dict[str, Any]) -> None:
    assert found["credentials"] == []
    names = set(found["environment"])
    assert not {name for name in names if any(word in name for word in ("TOKEN", "SECRET", "MONGODB", "NATS", "KEY"))}
    allowed = {"PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    allowed |= {"ORT_DISABLE_TELEMETRY"}
    assert {
        n for n in names - allowed if not n.startswith("PENSTOCK_") and not n.endswith(("_THREADS", "_COUNT"))
    } == set()
    assert found["descriptors"] == []


def test_code_gets_no_answer_from_the_servers_behind_the_platform(found: dict[str, Any]) -> None:
    """It may connect, as anything on this machine may; but nobody talks to it."""
    ports = found["ports"]
    assert '"auth_required":true' in ports["nats"] and "+OK" not in ports["nats"]
    assert "401" in ports["edge"]
    assert all(ports[order].startswith("HTTP/1.1 403") for order in ("quit", "fail"))
    if os.geteuid() == 0:
        assert ports["mongodb"] == ""


def test_links_in_outputs_do_not_make_the_platform_read_for_the_job(
    rivals: Rivals, victim: Victim, tmp_path: Path
) -> None:
    (tmp_path / "linker.py").write_bytes((SCRIPTS / "linker.py").read_bytes())
    red = rivals[0]
    sent = pb.CreateCodeArchiveRequest(parent=red.name, data=pack(tmp_path))
    code = pb.Code(archive=red.client.training.CreateCodeArchive(sent).digest)
    names = {}
    for what in ("link", "folder", "model", "whole", "pipe", "metrics"):
        version = f"{red.name}/datasets/{SAME}/versions/1"
        command = ["python", "linker.py", str(victim.home / "token"), what]
        run = pb.Run(dataset_version=version, code=code, command=command)
        names[what] = red.client.training.CreateRun(pb.CreateRunRequest(parent=red.name, run=run)).name
    for what, name in names.items():
        done: pb.Run = wait(lambda name=name: red.client.training.WatchRun(pb.WatchRunRequest(name=name)))  # type: ignore[misc]
        expected = pb.Run.SUCCEEDED if what == "metrics" else pb.Run.FAILED
        assert done.state == expected, (what, done.reason)
        assert not done.artifacts, (what, done.artifacts)
        log = b"".join(p.data for p in red.client.training.ReadLog(pb.ReadLogRequest(name=name)))
        assert victim.admin.encode() not in log and b"eyJ" not in log


def test_a_job_can_be_stopped_whatever_it_does_to_stay(rivals: Rivals, tmp_path: Path) -> None:
    (tmp_path / "stay.py").write_text(
        "import os, signal, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        os.environ.clear()\n"
        "        os.execv('/bin/sleep', ['/bin/sleep', '87654'])\n"
        "print('here', flush=True)\n"
        "time.sleep(600)\n"
    )
    red = rivals[0]
    sent = pb.CreateCodeArchiveRequest(parent=red.name, data=pack(tmp_path))
    code = pb.Code(archive=red.client.training.CreateCodeArchive(sent).digest)
    run = pb.Run(dataset_version=f"{red.name}/datasets/{SAME}/versions/1", code=code, command=["python", "stay.py"])
    run.resources.timeout.FromSeconds(3)
    name = red.client.training.CreateRun(pb.CreateRunRequest(parent=red.name, run=run)).name
    time.sleep(2)
    red.client.training.CancelRun(pb.CancelRunRequest(name=name))
    done: pb.Run = wait(lambda: red.client.training.WatchRun(pb.WatchRunRequest(name=name)))
    assert done.state == pb.Run.CANCELLED
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"87654" in _read(p)]
    assert not left


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
