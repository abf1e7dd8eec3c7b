"""A process that hangs is started again; one that answers, whatever it says, is left alone."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from penstock.backing import health, supervisor
from penstock.backing.ports import free_port
from penstock.backing.process import ManagedProcess, Program, wait_ready
from penstock.backing.supervisor import Backoff, Supervisor
from tests.integration.backing.waiting import until

NAME = "server"
SERVER = """
import asyncio, sys
import grpc
from grpc_health.v1 import _async, health_pb2, health_pb2_grpc

async def main():
    server, servicer = grpc.aio.server(), _async.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(sys.argv[2]))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    await server.start()
    await server.wait_for_termination()

asyncio.run(main())
"""


async def until_it_answers(port: int) -> None:
    async with asyncio.timeout(30):
        while not await health.answers(port):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("state", "hangs"), [("SERVING", True), ("NOT_SERVING", False)])
async def test_only_what_gives_no_answer_is_started_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, state: str, hangs: bool
) -> None:
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(health, "PATIENCE", 1.0)
    monkeypatch.setattr(health, "HUNG_AFTER", 3)
    port, looks = free_port(), 0

    async def answers() -> bool:
        nonlocal looks
        looks += 1
        return await health.answers(port)

    async def start() -> ManagedProcess:
        program = Program(NAME, [sys.executable, "-c", SERVER, str(port), state])
        process = ManagedProcess.ensure(home, NAME, lambda: program)
        await wait_ready(process, lambda: health.answers(port), timeout=30)
        return process

    watching = Supervisor(Backoff(first=0.05))
    watching.watch(NAME, start, health.Hung(answers))
    try:
        await until(lambda: looks > 0, 30)
        before = ManagedProcess.adopt(home, NAME)
        assert before is not None and await health.serves(port) == (state == "SERVING")
        if hangs:
            before.identity.signal(signal.SIGSTOP)
            await until(lambda: watching.restarts[NAME] == 1, 30)
            looked = looks
            await until(lambda: looks > looked, 30)  # it is there again
            await until_it_answers(port)
            assert not before.identity.alive()
        else:
            await until(lambda: looks > 2 * health.HUNG_AFTER, 30)
            assert before.identity.alive() and watching.restarts[NAME] == 0
    finally:
        await watching.close()
        if left := ManagedProcess.adopt(home, NAME):
            await asyncio.to_thread(left.kill)


async def test_one_answer_is_enough() -> None:
    given = iter([*[False] * (health.HUNG_AFTER - 1), True, *[False] * health.HUNG_AFTER, False])

    async def answers() -> bool:
        return next(given)

    hung = health.Hung(answers)
    told = [await hung() for _ in range(2 * health.HUNG_AFTER + 1)]
    assert told == [*[False] * (2 * health.HUNG_AFTER - 1), True, False]
