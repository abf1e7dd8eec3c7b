"""What must be true at the end of every demo, seen from outside: by the API, in the database, and in the stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock import names
from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.evaluation.v1 import evaluation_service_pb2 as evaluation_pb
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pipeline_pb
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.backing.records import read_record
from penstock.backing.stack import Stack
from penstock.cli.demo.loop import DATASET, MODEL, PIPELINE, TEST, Loop
from penstock.events import Bus, Event
from penstock.events.credentials import Permissions
from penstock.events.envelope import from_entry
from penstock.events.event_log import EventLog
from penstock.events.subjects import STREAM
from penstock.events.tail import tail
from penstock.objects import ObjectStore
from penstock.rpc.structs import from_struct
from penstock.sdk.client import Client
from penstock.store import Database, Rows

SETTLED = 60.0  # seconds in which what is under way must have been published and applied
RUNS = 10  # one by hand, eight trials, one by the pipeline
TERMINAL = ("training.run.succeeded", "training.run.failed", "training.run.cancelled")
DATABASES = ("project", "dataset", "training", "tuning", "evaluation", "serving", "pipeline", "lineage")


@dataclass
class Verdict:
    """The broken promises, none hopefully, and what a demo is compared by."""

    digests: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def expect(self, true: bool, broken: str) -> None:
        """Note a broken promise."""
        if not true:
            self.broken.append(broken)


def check_data(client: Client, loop: Loop, verdict: Verdict) -> None:
    """The versions hold the same rows as ever, and the second corrects exactly what was wrong."""
    for dataset, number in ((DATASET, 1), (DATASET, 2), (TEST, 1)):
        name = client.name("dataset_version", dataset, number)
        manifest = client.datasets.GetManifest(dataset_pb.GetManifestRequest(name=name, wait=True))
        verdict.digests[f"{dataset}@{number}"] = manifest.rows_digest
    for dataset, head in ((DATASET, 2), (TEST, 1)):
        found = client.dataset(dataset).get().head
        verdict.expect(found == head, f"{dataset} has {found} versions instead of {head}")
    wrong = {str(record["id"]): record for record in loop.digits.train}
    right = {
        key: {**record, "label": loop.digits.corrections.get(key, record["label"])} for key, record in wrong.items()
    }
    clean = {str(record["id"]): record for record in loop.digits.test}
    for dataset, number, expected in ((DATASET, 1, wrong), (DATASET, 2, right), (TEST, 1, clean)):
        rows = {record.key: from_struct(record.data) for record in client.dataset(dataset).records(version=number)}
        verdict.expect(rows == expected, f"{dataset}@{number} holds other records")
    corrected = {change.key: from_struct(change.after)["label"] for change in client.dataset(DATASET).diff(1, 2)}
    verdict.expect(corrected == dict(loop.digits.corrections), "the correction is another one")


def check_completions(client: Client, home: Path, verdict: Verdict) -> None:
    """Each run, trial and evaluation ended once, by one attempt, whose result is what was accepted."""
    objects = ObjectStore.open((home / "objects").as_uri())
    runs = list(_runs(client))
    verdict.expect(len(runs) == RUNS, f"there are {len(runs)} runs instead of {RUNS}")
    for run in runs:
        accepted = [attempt.number for attempt in run.attempts if attempt.state == training_pb.Attempt.SUCCEEDED]
        verdict.expect(
            run.state == training_pb.Run.SUCCEEDED and accepted == [run.attempt],
            f"{run.name} is {training_pb.Run.State.Name(run.state)} and accepted {accepted}: {run.reason}",
        )
        stored = objects.get_named(f"{run.name}/attempts/{run.attempt}/result.json")
        outputs = {o["path"]: o["digest"] for o in json.loads(stored)["outputs"]} if stored else {}
        published = {artifact.path: artifact.digest for artifact in run.artifacts}
        verdict.expect(bool(published) and published == outputs, f"{run.name} publishes other files than it accepted")
    listed = client.training.ListModelVersions(
        training_pb.ListModelVersionsRequest(parent=client.name("model", MODEL), page_size=100)
    )
    versions = sorted(version.number for version in listed.model_versions)
    verdict.expect(versions == [1, 2, 3], f"the model has the versions {versions}")
    evaluations = client.evaluations.ListEvaluations(evaluation_pb.ListEvaluationsRequest(parent=client.project))
    states = [evaluation_pb.Evaluation.State.Name(e.state) for e in evaluations.evaluations]
    verdict.expect(len(states) >= 2 and set(states) == {"SUCCEEDED"}, f"evaluations are {states}")
    pipeline = client.name("pipeline", PIPELINE)
    reactions = client.pipelines.ListPipelineRuns(pipeline_pb.ListPipelineRunsRequest(parent=pipeline)).pipeline_runs
    verdict.expect(len(reactions) == 1, f"the pipeline ran {len(reactions)} times")


def _runs(client: Client) -> Iterable[training_pb.Run]:
    token = ""
    while True:
        page = client.training.ListRuns(training_pb.ListRunsRequest(parent=client.project, page_token=token))
        yield from page.runs
        token = page.next_page_token
        if not token:
            return


def check_events(home: Path, verdict: Verdict) -> None:
    """Every event that was committed is kept, was published in order, and applied by all that listen."""
    asyncio.run(_check_events(home, verdict))


async def _check_events(home: Path, verdict: Verdict) -> None:
    mongodb, nats = read_record(home, "mongodb"), read_record(home, "nats")
    assert mongodb is not None and nats is not None
    uri = f"mongodb://127.0.0.1:{mongodb[1]['port']}/?directConnection=true"
    databases = {name: Database.connect(uri, f"penstock_{name}") for name in DATABASES}
    credentials = Stack(home).credentials("chaos", Permissions((">",), (">",)))
    bus = await Bus.connect(f"nats://127.0.0.1:{nats[1]['port']}", credentials, "chaos")
    try:
        kept = await _settled(databases, verdict)
        _check_order("kept", kept, verdict, contiguous=True)
        terminal = [e.subject for events in kept.values() for e in events if e.type in TERMINAL]
        verdict.expect(len(terminal) == len(set(terminal)) == RUNS, f"{len(terminal)} ends of runs were told")
        published = await _published(bus)
        _check_order("published", published, verdict, contiguous=False)
        missing = {e.id for events in kept.values() for e in events} - {
            e.id for events in published.values() for e in events
        }
        verdict.expect(not missing, f"never published: {sorted(missing)[:5]}")
        for name, database in databases.items():
            letters = await Rows(database, "dead_letters").find()
            verdict.expect(not letters, f"{name} has dead letters: {letters[:2]}")
    finally:
        await bus.close()
        for database in databases.values():
            await database.close()


async def _settled(databases: Mapping[str, Database], verdict: Verdict) -> dict[str, list[Event]]:
    """All kept events by resource, once no outbox holds any more and every consumer is as far as they are."""
    deadline = time.monotonic() + SETTLED
    while True:
        kept = await _kept(databases.values())
        behind = await _behind(databases, {resource: events[-1].sequence for resource, events in kept.items()})
        if not behind or time.monotonic() > deadline:
            verdict.expect(not behind, f"after {SETTLED:g} s still behind: {behind[:5]}")
            return kept
        await asyncio.sleep(0.3)


async def _kept(databases: Iterable[Database]) -> dict[str, list[Event]]:
    kept: dict[str, list[Event]] = defaultdict(list)
    for database in databases:
        async for events in EventLog(database).all():
            for event in events:
                kept[event.subject].append(event)
    return {resource: sorted(events, key=lambda e: e.sequence) for resource, events in kept.items()}


async def _behind(databases: Mapping[str, Database], last: Mapping[str, int]) -> list[str]:
    """Outboxes with something in them, and cursors that have not come to the last event."""
    behind = []
    for name, database in databases.items():
        for document in await _pending(database):
            behind.append(f"outbox of {document['_id']}")
            behind += [from_entry(entry).id for entry in document["outbox"]]
        cursors = {row["_id"]: row for row in await Rows(database, "cursors", indexes=("consumer",)).find()}
        behind += [
            f"{id} at {row['sequence']} of {last[row['resource']]}"
            for id, row in cursors.items()
            if row["sequence"] != last.get(row["resource"], row["sequence"])
        ]
        if name == "lineage":  # it listens to everything
            behind += [f"lineage never heard of {r}" for r in last if f"lineage/{r}" not in cursors]
    return behind


async def _pending(database: Database) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    owner = database.collection("events").database
    for collection in await owner.list_collection_names():
        found += await database.collection(collection).find({"pending": 1}).to_list(None)
    return found


async def _published(bus: Bus) -> dict[str, list[Event]]:
    """The stream's events by resource, in its order."""
    found: dict[str, list[Event]] = defaultdict(list)
    messages = (await bus.context.stream_info(STREAM)).state.messages
    events = tail(bus, since=datetime(2000, 1, 1, tzinfo=UTC))
    async with contextlib.aclosing(events), asyncio.timeout(30):
        for _ in range(messages):
            event = await anext(events)
            found[event.subject].append(event)
    return found


def _check_order(what: str, events: Mapping[str, list[Event]], verdict: Verdict, *, contiguous: bool) -> None:
    """Sequences begin at 1 and have no gap; what comes again (`contiguous` off) has been there before."""
    for resource, found in events.items():
        seen = 0
        for event in found:
            verdict.expect(
                event.sequence == seen + 1 if contiguous else event.sequence <= seen + 1,
                f"{what}: {names.parse(resource)} has {event.sequence} after {seen}",
            )
            seen = max(seen, event.sequence)
