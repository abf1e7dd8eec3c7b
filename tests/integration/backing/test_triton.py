"""Triton with real ONNX models: right answers, errors that stay with their request, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from penstock.backing import triton
from penstock.backing.ports import port_free
from penstock.backing.process import ManagedProcess, Program
from penstock.backing.supervisor import Backoff, Supervisor
from penstock.backing.triton import TritonInstance, sweep
from penstock.backing.triton_environment import TritonEnvironment
from penstock.errors import FailedPrecondition
from tests.integration.backing.onnx_models import (
    TYPES,
    identity_model,
    outside_weights,
    reciprocal_table,
    scalars_model,
)
from tests.integration.backing.tritons import infer, lookup, new_instance, tensor
from tests.integration.backing.waiting import until

TENSORS: dict[str, list[Any]] = {
    "FP32": [1.5, -2.0, 0.0, 4.0],
    "FP64": [1.25, 1e300, -0.5, 2.0],
    "INT64": [1, -(2**53), 3, 0],
    "INT32": [1, 2, -3, 2**31 - 1],
    "BOOL": [True, False, False, True],
    "BYTES": ["a", "", "grün", "日本"],
}


def _regions() -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith("penstock-")]


def _folders() -> set[str]:
    return {name for name in os.listdir("/tmp") if name.startswith("python_env_")}


@pytest.fixture
async def table(home: Path, triton_environment: TritonEnvironment) -> AsyncIterator[TritonInstance]:
    """A Triton that looks x up in a table of 3 rows."""
    instance = new_instance(home, triton_environment, reciprocal_table(home / "model"))
    await instance.start(attached=True)
    yield instance
    await instance.remove(grace=0)


@pytest.fixture
async def plain(
    home: Path, triton_environment: TritonEnvironment, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TritonInstance]:
    """The same as the platform's own user, as where the platform is not root: its shared memory is everybody's."""
    monkeypatch.setattr(triton, "_sandbox", lambda *_: None)
    instance = new_instance(home, triton_environment, reciprocal_table(home / "model"))
    await instance.start(attached=True)
    yield instance
    await instance.remove(grace=0)


async def test_tensors_of_every_type_come_back_as_they_went(home: Path, triton_environment: TritonEnvironment) -> None:
    instance = new_instance(home, triton_environment, identity_model(home / "model", list(TYPES)))
    await instance.start(attached=True)
    inputs = [tensor(f"in_{name}", name, [2, 2], data) for name, data in TENSORS.items()]
    status, answer = await infer(instance, inputs)
    await instance.remove(grace=0)
    assert status == 200, answer
    assert {output["name"]: output["data"] for output in answer["outputs"]} == {
        f"out_{name}": data for name, data in TENSORS.items()
    }


async def test_a_home_may_have_any_path(home: Path, triton_environment: TritonEnvironment) -> None:
    odd = home / "it's a home"
    instance = new_instance(odd, triton_environment, reciprocal_table(odd / "model"))
    await instance.start(attached=True)
    assert (await lookup(instance, 1))[0] == 200
    await instance.remove(grace=0)


async def test_a_request_that_is_wrong_fails_alone(table: TritonInstance) -> None:
    assert table.process is not None
    before = table.process.identity.family()
    for wrong in (
        [tensor("x", "INT64", [1, 1], [7])],  # beyond the table: onnxruntime fails
        [tensor("x", "INT64", [1, 2], [0, 1])],
        [tensor("x", "INT64", [1], [0])],
        [tensor("x", "FP32", [1, 1], [0.5])],
        [tensor("z", "INT64", [1, 1], [0])],
        [],
    ):
        status, answer = await infer(table, wrong)
        assert status in (400, 500), answer
        assert answer["error"]
        assert (await lookup(table, 2))[1]["outputs"][0]["data"] == [0.25]
    assert table.process.identity.family() == before


async def test_bytes_that_are_no_text_are_an_error_of_the_request(
    home: Path, triton_environment: TritonEnvironment
) -> None:
    instance = new_instance(home, triton_environment, identity_model(home / "model", ["BYTES"], width=1))
    await instance.start(attached=True)
    raw = b"\x02\x00\x00\x00\xff\xfe"
    spec = {"name": "in_BYTES", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [spec]}).encode()
    url = f"http://127.0.0.1:{instance.http_port}/v2/models/m/infer"
    headers = {"Inference-Header-Content-Length": str(len(head))}
    async with aiohttp.ClientSession() as session, session.post(url, data=head + raw, headers=headers) as answer:
        text = await answer.text()
        assert answer.status in (400, 500)
    assert "utf-8" in text
    status, _ = await infer(instance, [tensor("in_BYTES", "BYTES", [1, 1], ["ok"])])
    assert status == 200
    await instance.remove(grace=0)


async def test_a_long_batch_is_answered_and_an_empty_one_refused(table: TritonInstance) -> None:
    status, answer = await infer(table, [tensor("x", "INT64", [5000, 1], [1] * 5000)])
    assert status == 200, answer
    assert answer["outputs"][0]["data"] == [0.5] * 5000
    status, answer = await infer(table, [tensor("x", "INT64", [0, 1], [])])
    assert status == 400, answer


async def test_requests_that_are_run_together_get_their_own_answers_and_errors(table: TritonInstance) -> None:
    rows = [[index % 3] * (index % 7 + 1) for index in range(200)]
    rows[50] = rows[120] = [99]  # fails, and would fail whatever is run with it
    answers = await asyncio.gather(*(infer(table, [tensor("x", "INT64", [len(x), 1], x)]) for x in rows))
    for x, (status, answer) in zip(rows, answers, strict=True):
        if x == [99]:
            assert status in (400, 500)
        else:
            assert answer["outputs"][0]["data"] == [0.5**value for value in x]
    url = f"http://127.0.0.1:{table.http_port}/v2/models/m/stats"
    async with aiohttp.ClientSession() as session, session.get(url) as statistics:
        counts = json.loads(await statistics.text())["model_stats"][0]
    assert counts["execution_count"] < len(rows) / 2  # that is, they were run together


async def test_inputs_of_scalars_are_served_too(home: Path, triton_environment: TritonEnvironment) -> None:
    instance = new_instance(home, triton_environment, scalars_model(home / "model"))
    await instance.start(attached=True)
    status, answer = await infer(instance, [tensor("x", "FP32", [3], [1.0, 2.0, 3.0])])
    await instance.remove(grace=0)
    assert status == 200, answer
    assert [(output["shape"], output["data"]) for output in answer["outputs"]] == [([3], [1.0, 2.0, 3.0])]


async def test_a_model_may_have_its_weights_in_a_file_of_their_own(
    home: Path, triton_environment: TritonEnvironment
) -> None:
    model = outside_weights(home / "model")
    assert (model / "model.onnx.data").stat().st_size == 4
    instance = new_instance(home, triton_environment, model)
    await instance.start(attached=True)
    status, answer = await infer(instance, [tensor("x", "FP32", [1, 1], [1.5])])
    await instance.remove(grace=0)
    assert (status, answer["outputs"][0]["data"]) == (200, [3.0])


async def test_a_stop_leaves_neither_process_nor_shared_memory(plain: TritonInstance) -> None:
    assert plain.process is not None
    prefix = str(plain.process.facts["shm_prefix"])
    assert any(name.startswith(prefix) for name in _regions())
    await plain.stop()
    assert plain.process.identity.family() == []
    assert not any(name.startswith(prefix) for name in _regions())


async def test_after_kill_9_it_is_restarted_on_its_ports_and_the_remains_are_swept(plain: TritonInstance) -> None:
    assert plain.process is not None
    killed, prefix = plain.process.identity, str(plain.process.facts["shm_prefix"])
    ports = plain.http_port, plain.grpc_port
    supervisor = Supervisor(Backoff(first=0.05))
    supervisor.watch("triton", plain.start)
    os.kill(killed.pid, signal.SIGKILL)
    await until(lambda: plain.process is not None and plain.process.identity != killed)
    await supervisor.close()
    await plain.start()
    assert (plain.http_port, plain.grpc_port) == ports
    assert killed.family() == []
    assert not any(name.startswith(prefix) for name in _regions())
    assert (await lookup(plain, 1))[0] == 200


async def test_a_stop_after_kill_9_sweeps_too(plain: TritonInstance) -> None:
    assert plain.process is not None
    killed, prefix = plain.process.identity, str(plain.process.facts["shm_prefix"])
    os.kill(killed.pid, signal.SIGKILL)
    await until(lambda: not killed.alive())
    assert any(name.startswith(prefix) for name in _regions())  # what would be left without the sweep
    heir = TritonInstance(plain.home, plain.name, plain._environment, plain._repository, plain._files, "m")
    await heir.remove(grace=0)
    assert killed.family() == []
    assert not any(name.startswith(prefix) for name in _regions())


async def test_a_new_parent_adopts_it(table: TritonInstance) -> None:
    heir = TritonInstance(table.home, table.name, table._environment, table._repository, table._files, "m")
    process = await heir.start()
    assert table.process is not None
    assert process.identity == table.process.identity
    assert (heir.http_port, heir.grpc_port) == (table.http_port, table.grpc_port)


async def test_one_revision_is_stopped_without_touching_another(
    table: TritonInstance, home: Path, triton_environment: TritonEnvironment
) -> None:
    other = new_instance(home, triton_environment, reciprocal_table(home / "other"), "triton-2")
    await other.start(attached=True)
    await other.remove(grace=0)
    assert port_free(other.http_port)
    assert (await lookup(table, 0))[1]["outputs"][0]["data"] == [1.0]


@pytest.mark.parametrize("path", ["repository/index", "repository/models/m/unload", "logging"])
async def test_its_control_api_is_closed(table: TritonInstance, path: str) -> None:
    url = f"http://127.0.0.1:{table.http_port}/v2/{path}"
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}") as answer:
        assert answer.status == 403


def _arguments_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


async def test_what_everybody_can_read_in_its_arguments_opens_nothing(table: TritonInstance) -> None:
    assert table.process is not None
    arguments = _arguments_of(table.process.identity.pid)
    closing = [word.partition(b":")[2] for word in arguments if b"-restricted-" in word]
    assert len(closing) == 2
    for key, _, value in (word.partition(b"=") for word in closing):
        reader, writer = await asyncio.open_connection("127.0.0.1", table.http_port)
        head = b"POST /v2/repository/index HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n"
        writer.write(head + key + b": " + value + b"\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert not answer.startswith(b"HTTP/1.1 200")


async def test_clients_cannot_register_shared_memory(table: TritonInstance) -> None:
    url = f"http://127.0.0.1:{table.http_port}/v2/systemsharedmemory/region/x/register"
    body = json.dumps({"key": "/x", "offset": 0, "byte_size": 8})
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
        assert answer.status == 403


@pytest.mark.parametrize("damage", ["not onnx", "signature", "wrong type"])
async def test_a_model_that_does_not_load_says_why_and_leaves_nothing(
    home: Path, triton_environment: TritonEnvironment, damage: str
) -> None:
    model = reciprocal_table(home / "model")
    if damage == "not onnx":
        (model / "model.onnx").write_bytes(b"not a model")
    else:
        described = json.loads((model / "model.json").read_text())
        change = {"name": "absent"} if damage == "signature" else {"datatype": "FP64"}
        described["signature"]["outputs"][0].update(change)
        (model / "model.json").write_text(json.dumps(described))
    instance = new_instance(home, triton_environment, model)
    reason = r"^Triton cannot load the model: [^\n]*(INVALID_PROTOBUF|declares the output 'absent'|'y' as FP64)[^\n]*$"
    with pytest.raises(FailedPrecondition, match=reason):
        await instance.start(attached=True)
    assert instance.process is not None and instance.process.identity.family() == []
    prefix = str(instance.process.facts["shm_prefix"])
    assert not any(name.startswith(prefix) for name in _regions())


async def test_a_kill_leaves_no_temporary_folder_after_the_sweep(table: TritonInstance) -> None:
    assert table.process is not None
    before = _folders()
    table.process.identity.signal(signal.SIGKILL)
    await table.stop()
    assert len(before - _folders()) == 1


def test_a_sweep_takes_only_what_is_of_that_process(home: Path) -> None:
    foreign = Path("/dev/shm") / f"foreign-{os.getpid()}"
    old = Path("/tmp") / f"python_env_{os.getpid() % 10**6:06}"
    foreign.touch()
    old.mkdir()
    os.utime(old, (1e9, 1e9))
    sleeper = ManagedProcess.start(home, Program("sleeper", ["/bin/true"]))
    sleeper.stop()
    assert sweep(sleeper) == []
    assert foreign.exists()
    foreign.unlink()
    old.rmdir()
