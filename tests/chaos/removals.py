"""Each mechanism behind a promise, taken away in the tests' own process: `pytest -p tests.chaos.removals --without X`.

Nothing in the product can be switched off; what is removed here is removed from the loaded modules. The test that
stands for the promise must then fail, or it could not have told.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import Conflict
from penstock.events import lane, relay
from penstock.events.cursors import Cursor
from penstock.events.dead_letters import DeadLetters
from penstock.events.envelope import Event
from penstock.events.lane import Lane
from penstock.jobs import shim
from penstock.jobs.result import JobResult, JobState
from penstock.objects import ObjectStore
from penstock.runner import job as runner_job
from penstock.runner import outputs
from penstock.store import Aggregates
from penstock.store import database as store_database
from penstock.store.codec import encode_id
from penstock.store.requests import Requests
from services.dataset.committing.committer import Committer
from services.serving import verification
from services.serving.rollout import Rollout
from services.serving.traffic import Traffic
from services.training import model as training_model


def put(owner: Any, name: str, value: object) -> None:
    """Put something in the place of a function of the product."""
    assert hasattr(owner, name), f"{owner} has no {name} any more: this removal removes nothing"
    setattr(owner, name, value)


def journal() -> None:
    """Writes wait for no journal."""
    store_database._OPTIONS["journal"] = False


def compare_and_set() -> None:
    """A change is written whatever version it was read from."""

    async def blind(self: Aggregates[Any], id: str, version: int, change: Any, update: Any) -> bool:
        await store_database.write(lambda: self._collection.update_one({"_id": encode_id(id)}, update))
        return True

    put(Aggregates, "_compare_and_set", blind)


def one_document() -> None:
    """The events of a change are put into the outbox by a second write."""

    async def in_two(self: Aggregates[Any], id: str, version: int, change: Any, update: Any) -> bool:
        outbox = update["$push"].pop("outbox", None)
        update["$set"].pop("pending", None)
        target = {"_id": encode_id(id), "version": version}
        done = await store_database.write(lambda: self._collection.update_one(target, update))
        if outbox and done.modified_count:
            late = {"$push": {"outbox": outbox}, "$set": {"pending": 1}}
            await store_database.write(lambda: self._collection.update_one({"_id": encode_id(id)}, late))
        return bool(done.modified_count)

    put(Aggregates, "_compare_and_set", in_two)


def request_ids() -> None:
    """Nobody remembers that a request was carried out."""

    async def never(self: Requests, document: Any, request_id: str | None) -> bool:
        return False

    put(Requests, "saw", never)


def head() -> None:
    """A plan is decided on whatever the head has become since it was made."""

    async def overwrite(self: Committer, dataset: Any, begun: Any) -> Any:
        while True:
            latest = await self._repository.datasets.get(dataset.id)
            with suppress(Conflict):
                return await self._repository.datasets.save(latest, begun)

    put(Committer, "decide", overwrite)


def fence() -> None:
    """An attempt may complete a run that has gone on to another."""
    put(training_model, "fence", lambda run, attempt: None)


def claim() -> None:
    """A shim neither locks its attempt nor records its start."""
    put(shim, "claim", lambda *_: os.open(os.devnull, os.O_RDONLY))


def result_last() -> None:
    """The result is written before the files that it names."""
    store, make = outputs.store_outputs, runner_job._Job.__init__
    current: list[Any] = []

    def remembered(self: Any, *arguments: Any) -> None:
        current[:] = [self]
        make(self, *arguments)

    def hasty(objects: Any, folder: Path) -> Any:
        elsewhere = folder.with_name("elsewhere")  # beside the output: it goes with the job, whenever that is killed
        listed = store(ObjectStore(elsewhere), folder)
        moment = datetime.now(UTC)
        result = JobResult(JobState.SUCCEEDED, moment, moment, outputs=listed)
        runner_job.write_result(objects, current[0]._spec, result)
        return store(objects, folder)

    put(runner_job._Job, "__init__", remembered)
    put(runner_job, "store_outputs", hasty)


def cursor() -> None:
    """A consumer applies what comes, whatever it has applied before."""
    put(lane, "judge", lambda sequence, at: lane.Verdict.NEXT)


def order() -> None:
    """A consumer passes over what it has applied, and applies what is ahead of its turn."""
    put(lane, "judge", lambda sequence, at: lane.Verdict.OLD if sequence <= at else lane.Verdict.NEXT)


def trim_last() -> None:
    """Events leave the outbox before they are published."""
    original = relay.Relay._pass_on

    async def hasty(self: relay.Relay, outbox: Any, pending: Any) -> None:
        await outbox.aggregates.trim(pending)
        await original(self, outbox, pending)

    put(relay.Relay, "_pass_on", hasty)


def ack_last() -> None:
    """Messages are acknowledged before they are applied."""
    original = Lane._take

    async def hasty(self: Lane, batch: Any) -> None:
        await self._work.settle(batch)
        await original(self, batch)

    put(Lane, "_take", hasty)


def parking() -> None:
    """A resource goes on while one of its events is dead."""
    original = Lane._apply

    async def careless(self: Lane, at: Cursor, event: Event) -> Cursor:
        return replace(await original(self, replace(at, parked=False), event), parked=False)

    put(Lane, "_apply", careless)


def letters() -> None:
    """What cannot be applied is thrown away."""

    async def thrown_away(self: DeadLetters, *_: Any, **__: Any) -> str:
        return ""

    put(DeadLetters, "put", thrown_away)


def patience() -> None:
    """An event is given up at its first failure, before a retry could help."""
    put(lane, "FAILURES", 1)


def examples() -> None:
    """Nobody compares a model's answers with its examples."""
    put(verification, "check", lambda *_: None)


def applied() -> None:
    """Nobody waits until Envoy uses what was written, or until the old revision has answered its last request."""
    write = Traffic.apply

    async def hasty(self: Traffic, endpoint: Any, addresses: Any) -> None:
        if not any(revision.state == "SHIFTING" for revision in endpoint.revisions):
            await write(self, endpoint, addresses)

    async def retire(self: Rollout, endpoint: Any) -> None:
        for revision in endpoint.revisions:
            if revision.state == "DRAINING":
                await self._instances.remove(endpoint.name, revision.number)

    put(Traffic, "apply", hasty)
    put(Rollout, "_retire", retire)


@dataclass(frozen=True)
class Control:
    """A mechanism of a promise (design §5), and the test that must fail without it."""

    promise: int
    mechanism: str
    remove: Callable[[], None]
    test: str

    @property
    def name(self) -> str:
        """What `--without` takes."""
        return self.remove.__name__


_EVENTS, _JOBS, _SERVING = "tests/integration/events", "tests/integration/jobs", "tests/integration/serving"
_ANY_WRITE = f"{_EVENTS}/test_kth_write.py::test_a_fault_at_any_write_loses_and_doubles_nothing"
CONTROLS = [
    Control(1, "j: true", journal,
            "tests/chaos/test_journal_trace.py::test_every_acknowledged_write_is_synced"),
    Control(1, "the compare-and-set", compare_and_set,
            "tests/integration/store/test_aggregates.py::test_two_processes_changes_are_both_there"),
    Control(1, "state and outbox in one document", one_document, f"{_ANY_WRITE}[Fault.DIE_AFTER]"),
    Control(1, "request ids kept in the document", request_ids,
            "tests/integration/store/test_aggregates.py::test_a_change_with_a_seen_request_id_is_not_applied_again"),
    Control(1, "the compare-and-set on the head of a dataset", head,
            "tests/integration/dataset/test_faults.py::test_a_writer_paused_at_any_write_does_no_harm_when_it_wakes"),
    Control(2, "the attempt as a fencing token", fence,
            "tests/integration/training/test_faults.py::test_a_late_reconciler_is_fenced_off"),
    Control(2, "lock and start record of a shim", claim, f"{_JOBS}/test_kills.py::test_of_two_shims_one_leaves"),
    Control(2, "the result written last", result_last,
            f"{_JOBS}/test_kills.py::test_a_fault_at_every_object_write_leaves_a_whole_result_or_a_lost_attempt"),
    Control(3, "the cursor", cursor, f"{_EVENTS}/test_gaps.py::test_repeats_and_disorder_are_put_right"),
    Control(3, "refusing what is ahead", order, f"{_EVENTS}/test_gaps.py::test_repeats_and_disorder_are_put_right"),
    Control(3, "trimming the outbox after publishing", trim_last, f"{_ANY_WRITE}[Fault.DIE_AFTER]"),
    Control(3, "acknowledging after applying", ack_last, f"{_ANY_WRITE}[Fault.DIE_BEFORE]"),
    Control(4, "parking the resource of a dead letter", parking,
            f"{_EVENTS}/test_dead_letters.py::test_poison_parks_its_own_resource_only_and_can_be_retried"),
    Control(4, "keeping dead letters", letters,
            f"{_EVENTS}/test_dead_letters.py::test_poison_parks_its_own_resource_only_and_can_be_retried"),
    Control(4, "attempts before an event is given up", patience,
            f"{_EVENTS}/test_dead_letters.py::test_failures_are_counted_over_restarts"),
    Control(6, "comparing a model with its own examples", examples,
            f"{_SERVING}/test_verification.py::test_a_model_that_answers_its_examples_wrongly_gets_no_traffic"),
    Control(6, "waiting for Envoy before the old revision goes", applied,
            f"{_SERVING}/test_shift.py::test_a_shift_fails_no_request_and_tells_each_step"),
]  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """What to take away."""
    parser.addoption("--without", choices=[control.name for control in CONTROLS])


def pytest_configure(config: pytest.Config) -> None:
    """Take it away, before any test module is imported."""
    name = config.getoption("--without")
    for control in CONTROLS:
        if control.name == name:
            control.remove()
