"""The graph: told in any order between resources, twice, or late, it comes out the same."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from penstock.errors import Unavailable
from penstock.events import Event
from penstock.events.cursors import Cursor, Cursors
from penstock.events.envelope import from_entry
from penstock.store import Database
from services.lineage.model import Edge, Facts, read
from services.lineage.repository import Graph
from tests.support.story import Teller, first_loop, second_loop

PROJECT = "vision"
REVISION = f"projects/{PROJECT}/endpoints/live/revisions/2"
VERSION = f"projects/{PROJECT}/datasets/digits/versions/2"


@pytest.fixture
async def database(mongodb_uri: str) -> AsyncIterator[Database]:
    connected = Database.connect(mongodb_uri, f"lineage_{secrets.token_hex(4)}")
    yield connected
    await connected.drop()
    await connected.close()


@pytest.fixture
async def graph(database: Database) -> Graph:
    made = Graph(database)
    await made.prepare()
    return made


@pytest.fixture
async def events(database: Database) -> list[list[Event]]:
    """The story's events, by resource."""
    teller = await Teller.open(database, PROJECT)
    await first_loop(teller)
    await second_loop(teller)
    return [[from_entry(entry) for entry in one.entries] for one in await teller.things.pending()]


async def snapshot(database: Database) -> tuple[Any, Any]:
    nodes = await database.collection("nodes").find({}).to_list(None)
    edges = await database.collection("edges").find({}).to_list(None)
    return sorted(nodes, key=lambda n: n["_id"]), sorted(edge["_id"] for edge in edges)


async def test_a_revision_comes_from_all_that_led_to_it(graph: Graph, events: list[list[Event]]) -> None:
    for event in (event for resource in events for event in resource):
        await graph.add(read(event))
    edges = await graph.ancestors([REVISION], PROJECT)
    p = f"projects/{PROJECT}"
    assert Edge(f"{p}/models/digits/versions/2", REVISION, "deployed_as") in edges
    assert Edge(f"{p}/runs/two", f"{p}/models/digits/versions/2", "produced") in edges
    assert Edge(VERSION, f"{p}/runs/two", "trained_on") in edges
    assert Edge(f"{p}/pipelines/retrain/runs/r1", REVISION, "made") in edges
    assert Edge(f"{p}/datasets/digits@2", f"{p}/pipelines/retrain/runs/r1", "caused") in edges
    assert not any("versions/1" in edge.source for edge in edges)
    run = (await graph.nodes([f"{p}/runs/two"], PROJECT))[f"{p}/runs/two"]
    assert run["attributes"]["state"] == "succeeded"
    assert run["attributes"]["code_commit"] == "commit-two"
    assert run["attributes"]["parameters"] == {"depth": 3}


async def test_resources_may_come_in_any_order_and_events_twice_at_once(
    graph: Graph, database: Database, events: list[list[Event]]
) -> None:
    for event in (event for resource in events for event in resource):
        await graph.add(read(event))
    wanted = await snapshot(database)
    chance = random.Random(7)
    for _ in range(3):
        await graph.clear()
        queues = [list(resource) for resource in events]
        while any(queues):
            queue = chance.choice([queue for queue in queues if queue])
            event = queue.pop(0)
            twin = Graph(database)
            await asyncio.gather(graph.add(read(event)), twin.add(read(event)))
        assert await snapshot(database) == wanted


async def test_a_late_writer_takes_nothing_back(graph: Graph, events: list[list[Event]]) -> None:
    (run,) = [resource for resource in events if resource[0].subject.endswith("/runs/two")]
    for event in (*run, run[0]):
        await graph.add(read(event))
    node = (await graph.nodes([run[0].subject], PROJECT))[run[0].subject]
    assert node["attributes"]["state"] == "succeeded"


async def test_a_cause_that_names_another_project_leads_nowhere(graph: Graph, events: list[list[Event]]) -> None:
    """A pipeline run's causes may come from outside, where ids are whatever the source likes."""
    for event in (event for resource in events for event in resource):
        await graph.add(read(event))
    stolen = f"projects/{PROJECT}/datasets/digits@2"
    await graph.add(Facts((), (Edge(stolen, "projects/thief/pipelines/x/runs/r", "caused"),)))
    assert await graph.ancestors(["projects/thief/pipelines/x/runs/r"], "thief") == []
    assert await graph.nodes([stolen], "thief") == {}
    assert not any(edge.target.startswith("projects/thief") for edge in await graph.descendants([VERSION], PROJECT))


async def test_circles_end(graph: Graph) -> None:
    await graph.add(Facts((), (Edge("a", "b", "x"), Edge("b", "c", "x"), Edge("c", "a", "x"))))
    assert len(await graph.ancestors(["a"], PROJECT)) == 3


async def test_a_cursor_from_before_a_reset_is_not_stored_after_it(database: Database) -> None:
    """Else the replay that follows would pass over what was emptied."""
    cursors = Cursors(database, "lineage")
    first = await cursors.move(Cursor("projects/p/runs/r"), Cursor("projects/p/runs/r", 1))
    await cursors.reset()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(cursors.move(first, replace(first, sequence=2)), 5)
    assert (await cursors.load(["projects/p/runs/r"]))["projects/p/runs/r"].sequence == 0
