"""The service as a process, killed for real in the middle of an import and of its commit; and its events, published."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.api.dataset.v1.dataset_service_pb2_grpc import DatasetServiceStub
from penstock.backing.stack import Stack
from penstock.errors import AlreadyExists
from penstock.events import EventLog
from penstock.objects import ObjectStore
from penstock.rpc.channels import Channels
from penstock.store import Database
from services.dataset.service import assemble
from tests.support.dataset_platform import PARENT, Client, jsonl
from tests.support.dataset_state import check

ROWS = [{"id": f"k{n:05d}", "v": n, "text": "x" * (n % 50)} for n in range(4_000)]
CONTENT = jsonl(ROWS)


@pytest.fixture
def environ(stack: Stack, home: Path) -> dict[str, str]:
    for name in ("project", "dataset"):
        stack.service_credentials(name)
    return {
        "PENSTOCK_HOME": str(home),
        "PENSTOCK_MONGODB_URI": stack.mongodb_uri,
        "PENSTOCK_NATS_URL": stack.nats_url,
        "PENSTOCK_NATS_CREDENTIALS": str(stack.home / "nats" / "users"),
    }


@asynccontextmanager
async def process(environ: dict[str, str]) -> AsyncIterator[Channels]:
    """The project and dataset services in a process that is killed at the end of the block; channels to it."""
    command = (sys.executable, "-m", "services", "--only", "project,dataset")
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    running = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environ}, stdout=pipe, stderr=null)
    assert running.stdout is not None
    try:
        line = ""
        while not line.startswith("ready "):
            line = (await asyncio.wait_for(running.stdout.readline(), 30)).decode()
            assert line or running.returncode is None
        token = (Path(environ["PENSTOCK_HOME"]) / "token").read_text().strip()
        address = line.split()[1]
        channels = Channels({"dataset": address, "project": address}, lambda _: token)
        try:
            yield channels
        finally:
            await channels.close()
    finally:
        running.kill()
        await running.wait()


def client_of(channels: Channels) -> Client:
    return Client(channels.stub(DatasetServiceStub, "dataset"))


async def test_an_import_survives_kills_of_its_service(environ: dict[str, str], home: Path, stack: Stack) -> None:
    name = f"{PARENT}/datasets/killed-{secrets.token_hex(3)}"
    for seconds in (0.3, 1.0):  # while it uploads and stages, and while it commits
        async with process(environ) as channels:
            client = client_of(channels)
            with contextlib.suppress(AlreadyExists):
                await client.create(name.rpartition("/")[2])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await import_all(client, name)
    async with process(environ) as channels:
        client = client_of(channels)
        done = await import_all(client, name)
        assert (done.state, done.version) == (pb.Import.SUCCEEDED, f"{name}/versions/1"), done.reason
        assert await client.rows(name) == {row["id"]: row for row in ROWS}
        assert (await client.manifest(name, 1)).records == len(ROWS)
    await look_inside(name, home, stack.mongodb_uri)


async def import_all(client: Client, name: str) -> pb.Import:
    """Begin the import, or take it up where it is; then wait for its end."""
    begun = await client.begin(name, CONTENT, request_id="once")
    await client.upload(begun.name, CONTENT, start=begun.received, chunk=100_000)
    return await client.ended(begun.name)


async def look_inside(name: str, home: Path, mongodb_uri: str) -> None:
    """The invariants, and the events as they were published; then the databases are dropped."""
    databases = [Database.connect(mongodb_uri, f"penstock_{service}") for service in ("dataset", "project")]
    try:
        datasets = assemble(databases[0], ObjectStore.open((home / "objects").as_uri()), home / "cache")
        await check(datasets, name, relayed=True)
        events = await EventLog(databases[0]).of_resource(name)
        assert [(event.type, event.sequence) for event in events] == [("dataset.version.committed", 1)]
    finally:
        for database in databases:
            await database.drop()
            await database.close()
