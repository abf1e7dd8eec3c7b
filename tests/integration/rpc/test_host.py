"""One process with services: it starts, checks tokens, answers for events, keeps its audit trail, and stops."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.api.event.v1 import event_service_pb2 as events_pb
from penstock.api.event.v1.event_service_pb2_grpc import EventLogServiceStub
from penstock.backing.stack import Stack
from penstock.errors import NotFound, PermissionDenied, Unauthenticated
from penstock.events import DeadLetters, Event, EventLog, LetterState, NewEvent
from penstock.events.envelope import from_entry
from penstock.rpc.channels import Channels
from penstock.runtime.host import Host, api_services
from penstock.runtime.settings import Settings
from penstock.store.outbox import entries
from tests.integration.rpc.echo_service import NAME, SERVICE, eventually, messages, services
from tests.integration.rpc.toy_services import World

GET = messages.GetEchoRequest(name=NAME)
CREATE = messages.CreateEchoRequest(parent="projects/vision")
START_SECONDS = 30


@pytest.fixture
def settings(stack: Stack, home: Path) -> Settings:
    for name in ("project", "training"):
        stack.service_credentials(name)
    environ = {
        "PENSTOCK_HOME": str(home),
        "PENSTOCK_MONGODB_URI": stack.mongodb_uri,
        "PENSTOCK_NATS_URL": stack.nats_url,
        "PENSTOCK_NATS_CREDENTIALS": str(stack.home / "nats" / "users"),
    }
    return Settings.from_environ(environ)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def host(settings: Settings, world: World) -> AsyncIterator[Host]:
    builds = {"project": world.build_project, "training": world.build_training}
    async with Host(settings, builds) as running:
        yield running
        for context in running.contexts.values():
            await context.database().drop()


async def called(host: Host, token: str, method: str = "GetEcho", request: Any = GET) -> Any:
    channels = Channels({"training": host.address}, lambda _: token)
    try:
        return await getattr(channels.stub(services.EchoServiceStub, "training"), method)(request)
    finally:
        await channels.close()


def mint(host: Host, role: str = "editor", **more: Any) -> str:
    return host.tokens.mint("ann", "vision", role, 60, **more)


async def test_the_home_token_gets_in_and_only_its_owner_can_read_it(host: Host) -> None:
    file = host.settings.home / "token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await called(host, file.read_text().strip())).name == NAME


async def test_a_revocation_reaches_every_service(host: Host, world: World) -> None:
    token = mint(host, token_id="t1")
    await called(host, token)
    world.project.denied.append("t1")
    async with asyncio.timeout(5):
        while True:
            try:
                await called(host, token)
            except Unauthenticated:
                break
            await asyncio.sleep(0.1)


async def test_a_failed_task_is_started_again(host: Host, world: World) -> None:
    await eventually(lambda: world.runs == 2)


async def test_writes_reach_the_audit_log(host: Host, world: World) -> None:
    await called(host, mint(host), "CreateEcho", CREATE)
    with pytest.raises(PermissionDenied):
        await called(host, mint(host, "viewer"), "CreateEcho", CREATE)
    await eventually(lambda: len(world.project.entries) == 2)
    assert [(e.subject, e.method, e.resource, e.outcome) for e in world.project.entries] == [
        ("ann", f"{SERVICE}.CreateEcho", "projects/vision", "OK"),
        ("ann", f"{SERVICE}.CreateEcho", "projects/vision", "PERMISSION_DENIED"),
    ]


async def test_audit_records_outlive_a_stop_while_the_log_is_away(settings: Settings, world: World) -> None:
    builds = {"project": world.build_project, "training": world.build_training}
    world.project.fails = True
    async with Host(settings, builds) as first:
        await called(first, mint(first), "CreateEcho", CREATE)
    assert world.project.entries == []
    world.project.fails = False
    async with Host(settings, builds):
        await eventually(lambda: len(world.project.entries) > 0)
    assert [entry.subject for entry in world.project.entries] == ["ann"]
    async with Host(settings, builds):
        await asyncio.sleep(0.3)
    assert len(world.project.entries) == 1, "sent once only"


async def test_a_start_removes_what_killed_writers_left(settings: Settings, world: World) -> None:
    scratch = settings.home / "objects" / "scratch"
    scratch.mkdir(parents=True)
    for name, age in (("old", 2 * 86400), ("new", 60)):
        (scratch / name).touch()
        os.utime(scratch / name, (time.time() - age,) * 2)
    async with Host(settings, {"project": world.build_project, "training": world.build_training}):
        assert [path.name for path in scratch.iterdir()] == ["new"]


async def test_services_close_after_the_server_in_the_opposite_order(settings: Settings, world: World) -> None:
    async with Host(settings, {"project": world.build_project, "training": world.build_training}):
        assert world.closed == []
    assert world.closed == ["training", "project"]


async def test_events_and_dead_letters_are_answered_for(host: Host, world: World) -> None:
    context = world.contexts["training"]
    from_here = context.channels.stub(EventLogServiceStub, "training")
    assert context.address() == host.address
    assert await context.fetch_history(NAME, 0) == []
    assert await context.fetch_event(NAME, 1) is None
    with pytest.raises(NotFound, match="does not run in this process"):
        await from_here.ListEvents(events_pb.ListEventsRequest(resource="projects/vision/datasets/d"))

    event = Event(f"{NAME}@1", "training.run.started", "//penstock/training", NAME, 1, datetime.now(UTC))
    await DeadLetters(context.database()).put("tuning-trials", event, LetterState.DEAD, "it broke", 5)
    listed = (await from_here.ListDeadLetters(events_pb.ListDeadLettersRequest(service="training"))).dead_letters
    assert [(letter.resource, letter.error, letter.attempts) for letter in listed] == [(NAME, "it broke", 5)]
    decided = events_pb.DropDeadLetterRequest(service="training", id=listed[0].id)
    assert (await from_here.DropDeadLetter(decided)).id == listed[0].id
    channels = Channels({"training": host.address}, lambda _: mint(host, "admin"))
    with pytest.raises(PermissionDenied):
        await channels.stub(EventLogServiceStub, "training").ListDeadLetters(
            events_pb.ListDeadLettersRequest(service="training")
        )
    await channels.close()
    replayed = await from_here.ReplayEvents(events_pb.ReplayEventsRequest(service="training"))
    assert replayed.events == 0


async def test_of_a_long_history_one_event_is_fetched_alone(host: Host) -> None:
    context = host.contexts["training"]
    started = [NewEvent("training.run.started", {"run": NAME})] * 5
    kept = [(from_entry(entry), entry) for entry in entries(NAME, 0, started)]
    await EventLog(context.database()).append(kept)
    third = await context.fetch_event(NAME, 3)
    assert third is not None and third.id == f"{NAME}@3"
    assert await context.fetch_event(NAME, 6) is None
    assert [event.sequence for event in await context.fetch_history(NAME, 2)] == [3, 4, 5]
    stub = context.channels.stub(EventLogServiceStub, "training")
    answer = await stub.ListEvents(events_pb.ListEventsRequest(resource=NAME, after_sequence=1, page_size=2))
    assert [event.sequence for event in answer.events] == [2, 3]


async def test_metrics_are_shown_on_loopback(host: Host) -> None:
    await called(host, mint(host))

    def read() -> str:
        with urllib.request.urlopen(f"http://{host.metrics_address}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    text = await asyncio.to_thread(read)
    assert f'penstock_rpc_calls_total{{code="OK",method="GetEcho",service="{SERVICE}"}} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert host.metrics_address.startswith("127.0.0.1:")


async def test_two_processes_find_each_other_by_address(settings: Settings, world: World) -> None:
    async with Host(settings, {"project": world.build_project}) as first:
        apart = dataclasses.replace(settings, addresses={"project": first.address})
        async with Host(apart, {"training": world.build_training}) as second:
            assert (await called(second, mint(second))).name == NAME


def test_reflection_knows_all_services() -> None:
    known = api_services()
    for name in ("project", "dataset", "training", "tuning", "evaluation", "serving", "pipeline", "lineage"):
        assert f"penstock.api.{name}.v1.{name.capitalize()}Service" in known


# The process itself: `python -m services`, with the toy services.


def run_services(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    environ = {
        **os.environ,
        "PENSTOCK_HOME": str(settings.home),
        "PENSTOCK_MONGODB_URI": settings.mongodb_uri,
        "PENSTOCK_NATS_URL": settings.nats_url,
        "PENSTOCK_NATS_CREDENTIALS": str(settings.nats_credentials),
    }
    command = [sys.executable, "-m", "tests.integration.rpc.toy_services", *arguments]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_says_when_it_is_ready_and_stops_on_sigterm(settings: Settings, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    process = run_services(settings, "--only", "training,project", "--ready-file", str(ready))
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready 127.0.0.1:"), process.communicate(timeout=START_SECONDS)
        facts = json.loads(ready.read_text())
        assert facts["address"] == line.split()[1] and facts["pid"] == process.pid
        assert facts["services"] == ["project", "training"]
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=START_SECONDS)
        assert process.returncode == 0
        assert not ready.exists()
        assert all(json.loads(entry) for entry in logged.splitlines())
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_service_that_is_not_there_and_an_open_address_are_refused(settings: Settings) -> None:
    for arguments, text in (
        (("--only", "training,nonsense"), "there is no service 'nonsense'"),
        (("--only", "training", "--listen", "0.0.0.0:0"), "without TLS"),
    ):
        process = run_services(settings, *arguments)
        _, error = process.communicate(timeout=START_SECONDS)
        assert process.returncode == 2, error
        assert text in error
