"""The pipeline service's parts over a real database and fake actors, without NATS: events are handed over directly."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.events import Event
from penstock.rpc import causes
from penstock.rpc.channels import Channels
from penstock.rpc.denylist import Denylist
from penstock.rpc.keys import Keys
from penstock.rpc.server import Server
from penstock.rpc.tokens import ServiceTokens, Tokens
from penstock.store import Database, now
from services.pipeline.actions import actions
from services.pipeline.commands import Pipelines
from services.pipeline.driver import Driver
from services.pipeline.model import Pipeline, PipelineRun, Step, Trigger
from services.pipeline.recurrence import Recurrence
from services.pipeline.repository import Repository
from services.pipeline.trigger import Triggers
from services.pipeline.windows import Windows
from tests.support.fakes import SERVICES, Fakes

PROJECT = "vision"
COMMITTED = "dataset.version.committed"
TRAIN = Step("train", "train", {"dataset": "${event.data.version}", "algorithm": "mlp"})


async def nothing_denied() -> set[str]:
    """No token was revoked."""
    return set()


@dataclass
class Instance:
    """One process of the service, so to speak."""

    repository: Repository
    triggers: Triggers
    windows: Windows
    driver: Driver
    pipelines: Pipelines


@dataclass
class PipelinePlatform:
    """What outlives an instance."""

    database: Database
    fakes: Fakes = field(default_factory=Fakes)
    history: dict[str, list[Event]] = field(default_factory=dict)  # what other services' events are, by resource
    addresses: dict[str, str] = field(default_factory=dict)
    tokens: Tokens = field(default_factory=lambda: Tokens(Keys.generate()))
    _server: Server | None = None
    _channels: Channels | None = None

    @classmethod
    async def open(cls, mongodb_uri: str) -> PipelinePlatform:
        """Over a database of its own."""
        platform = cls(Database.connect(mongodb_uri, f"pipeline_{secrets.token_hex(4)}"))
        await Repository(platform.database).prepare()
        return platform

    async def serve_fakes(self) -> None:
        """Start the services that steps call."""
        self._server = Server("127.0.0.1:0", self.fakes.registrations(), self.tokens, Denylist(nothing_denied))
        address = await self._server.start()
        self.addresses.update(dict.fromkeys(SERVICES, address))

    def instance(self) -> Instance:
        """A process of the service; nothing of it runs yet."""
        if self._channels is None:
            source = ServiceTokens(self.tokens, "service:pipeline")
            self._channels = Channels(self.addresses, source, metadata=causes.outgoing)
        repository = Repository(self.database)
        windows = Windows(repository)
        driver = Driver(repository, actions(self._channels), windows.begun)
        pipelines = Pipelines(repository, windows.begun)
        return Instance(
            repository,
            Triggers(repository, windows, Recurrence(repository, self.fetch_event)),
            windows,
            driver,
            pipelines,
        )

    async def fetch_event(self, resource: str, sequence: int) -> Event | None:
        """An event of a resource, as its owner answers it."""
        return next((event for event in self.history.get(resource, []) if event.sequence == sequence), None)

    async def close(self) -> None:
        """End it."""
        if self._channels is not None:
            await self._channels.close()
        if self._server is not None:
            await self._server.stop(0)
        await self.database.drop()
        await self.database.close()


def pipeline(id: str = "retrain", *steps: Step, **more: Any) -> Pipeline:
    """A pipeline that waits for committed versions, made a minute ago by ann."""
    at = now() - timedelta(minutes=1)
    fields: dict[str, Any] = {
        "description": "",
        "trigger": Trigger(COMMITTED),
        "steps": steps or (TRAIN,),
        "max_recurrence": 3,
        "paused": False,
        "generation": 1,
        "author": "ann",
        "create_time": at,
        "update_time": at,
    }
    return Pipeline(name=f"projects/{PROJECT}/pipelines/{id}", project=PROJECT, **{**fields, **more})


def debounced(quiet: float, max_wait: float, **more: Any) -> Trigger:
    """A trigger that gathers."""
    return Trigger(COMMITTED, quiet=quiet, max_wait=max_wait, **more)


async def store(instance: Instance, value: Pipeline) -> Pipeline:
    """Store a pipeline as it is."""
    return (await instance.repository.pipelines.create(value.name, value)).value


def committed(number: int, *, chain: str = "", dataset: str = "digits", **data: Any) -> Event:
    """A version was committed just now, as the n-th event of its dataset."""
    name = f"projects/{PROJECT}/datasets/{dataset}"
    body = {"dataset": name, "version": f"{name}/versions/{number}", "number": str(number), **data}
    id = f"{name}@{number}"
    return Event(id, COMMITTED, "//penstock/dataset", name, number, now(), body, chain or id, "", "", PROJECT)


def outside(id: str, type: str = "camera.full", source: str = "//plant/1", **data: Any) -> Event:
    """An event from outside."""
    return Event(id, type, source, "", 0, datetime.now(UTC), data, f"chain-{id}", project=PROJECT)


async def runs(instance: Instance) -> list[PipelineRun]:
    """All runs, oldest first."""
    found = await instance.repository.runs.find(order_by="create_time")
    return [stored.value for stored in found]


async def decisions(instance: Instance, pipeline_id: str = "retrain") -> list[tuple[str, str]]:
    """What was decided: event id and outcome, oldest event first."""
    page = await instance.repository.decisions_page(f"projects/{PROJECT}/pipelines/{pipeline_id}", 1000, None)
    return [(row["cause"]["event_id"], row["outcome"]) for row in reversed(page)]


@asynccontextmanager
async def running(*work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Tasks in the background, cancelled at the end as by a kill."""
    tasks = [asyncio.ensure_future(one()) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def eventually(condition: Callable[[], Awaitable[Any]], seconds: float = 15.0) -> Any:
    """The first truthy answer of `condition`."""
    deadline = time.monotonic() + seconds
    while True:
        if found := await condition():
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)
