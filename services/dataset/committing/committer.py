"""The queue of frozen drafts of each dataset, taken oldest first, and each commit carried to its end.

Before `committing` is set nothing has happened; after it anyone who comes by rolls forward, never back. Two that do
the same at once only write the same twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from penstock.api.event.v1.events_pb2 import VersionCommitted
from penstock.errors import AlreadyExists, Conflict, NotFound, PenstockError, ResourceExhausted, Unavailable
from penstock.events import NewEvent
from penstock.objects import ObjectStore
from penstock.rpc.watch import Signals
from penstock.store import Stored, current_cause, now
from services.dataset.committing.plan import Operation, Plan, get_plan, put_plan, superseded_id
from services.dataset.committing.planning import Conflicted, NoChange, Planner
from services.dataset.model import Dataset, Draft, DraftState
from services.dataset.repository import Repository

log = structlog.get_logger(__name__)

BATCH = 500  # revisions a request: others wait while the embedded database works on one
IN_FLIGHT = 2
# What another attempt may mend; a draft fails for good with any other domain error.
PASSING = (Conflict, Unavailable, ResourceExhausted)


class Committer:
    """Commits. `visit` does all there is to do for one dataset; `committed` is called with it after each version."""

    def __init__(
        self,
        repository: Repository,
        objects: ObjectStore,
        planner: Planner,
        signals: Signals,
        committed: Callable[[str], None],
    ) -> None:
        self._committed = committed
        self._repository = repository
        self._objects = objects
        self._planner = planner
        self._signals = signals

    async def find(self) -> list[str]:
        """The datasets with something to do: a version half-way, or a frozen draft."""
        half_way = await self._repository.datasets.find(eq={"committing": 1})
        frozen = await self._repository.frozen()
        return list(dict.fromkeys([stored.id for stored in half_way] + [stored.value.dataset for stored in frozen]))

    async def visit(self, name: str) -> None:
        """Finish the version that is half-way, then commit all frozen drafts, oldest first."""
        while True:
            # Whichever is the older: nothing comes of a plan, or ends, unless the dataset is still what was read here.
            queue, dataset = await asyncio.gather(self._repository.queue(name), self._repository.datasets.get(name))
            if dataset.value.committing is not None:
                await self.roll_forward(dataset)
            elif not queue:
                return
            else:
                await self._commit(dataset, queue[0])

    async def _commit(self, dataset: Stored[Dataset], draft: Stored[Draft]) -> None:
        """Steps (b) and (c) for one draft. Losing the compare-and-set means looking again."""
        done = await self._repository.version_of(draft.value.commit, dataset.value.head)
        if done is not None:
            await self._settle(draft.id, draft.value.commit, done.number)
            return
        try:
            plan = await self._planner.plan(dataset.value, draft.value)
        except PASSING:
            raise
        except PenstockError as error:
            await self._end(dataset, draft, draft.value.failed(error.message, now()))
            return
        if isinstance(plan, NoChange):
            await self._end(dataset, draft, draft.value.committed(dataset.value.head, now()))
        elif isinstance(plan, Conflicted):
            head = dataset.value.head
            await self._end(dataset, draft, draft.value.conflicted(plan.conflicts, plan.more, head, now()))
        else:
            await self._begin(dataset, plan)

    async def _begin(self, dataset: Stored[Dataset], plan: Plan) -> None:
        digest = await asyncio.to_thread(put_plan, self._objects, plan)
        try:
            stored = await self.decide(dataset, dataset.value.begin(plan.number, digest, plan.draft))
        except Conflict:
            return
        await self.roll_forward(stored, plan)

    async def decide(self, dataset: Stored[Dataset], begun: Dataset) -> Stored[Dataset]:
        """Step (c), which makes this plan the one of its number. Raises Conflict if anything came between."""
        return await self._repository.datasets.save(dataset, begun)

    async def roll_forward(self, stored: Stored[Dataset], plan: Plan | None = None) -> None:
        """Steps (d) and (e), from the plan alone."""
        dataset = stored.value
        committing = dataset.committing
        assert committing is not None
        if plan is None:
            plan = await asyncio.to_thread(get_plan, self._objects, committing.plan)
        await self._write_revisions(plan)
        version = plan.version(committing.plan)
        try:
            await self._repository.versions.create(version.name, version)
        except AlreadyExists:
            log.debug("version was written before", version=version.name)
        await self.publish(stored, plan, committing.plan)
        await self._settle(plan.draft, plan.commit, plan.number)
        self._signals.notify(dataset.name)
        self._committed(dataset.name)

    async def _write_revisions(self, plan: Plan) -> None:
        """Insert new revisions and end those that they supersede; one batch is made while another is written.

        In any order, since no version before sees either.
        """
        in_flight: deque[asyncio.Task[None]] = deque()
        try:
            for chunk in plan.chunks:
                operations = await asyncio.to_thread(plan.operations, self._objects, chunk)
                for at in range(0, len(operations), BATCH):
                    if len(in_flight) == IN_FLIGHT:
                        await in_flight.popleft()
                    in_flight.append(asyncio.create_task(self._write_batch(plan, operations[at : at + BATCH])))
            while in_flight:
                await in_flight.popleft()
        finally:
            for task in in_flight:
                task.cancel()

    async def _write_batch(self, plan: Plan, operations: Sequence[Operation]) -> None:
        inserts = [plan.revision(operation) for operation in operations if operation.text is not None]
        await self._repository.insert(plan.dataset, inserts)
        closes = [
            (superseded_id(operation), operation.edit if operation.text is None else None)
            for operation in operations
            if operation.superseded
        ]
        await self._repository.close(plan.dataset, closes, plan.number)

    async def publish(self, stored: Stored[Dataset], plan: Plan, digest: str) -> None:
        """Step (e): the head moves and the event is written, in one compare-and-set."""
        token = current_cause.set(plan.cause)
        try:
            while (committing := stored.value.committing) is not None and committing.plan == digest:
                try:
                    await self._repository.datasets.save(stored, plan.published(stored.value), [_event(plan)])
                except Conflict:
                    stored = await self._repository.datasets.get(plan.dataset)  # somebody else may have been first
                else:
                    return
        finally:
            current_cause.reset(token)

    async def _settle(self, name: str, commit: str, number: int) -> None:
        """The draft's own document says what became of it, unless it has gone on to something else."""

        def settled(draft: Draft) -> Draft:
            mine = draft.commit == commit and draft.state in (DraftState.FROZEN, DraftState.CONFLICTED)
            return draft.committed(number, now()) if mine else draft

        try:
            await self._repository.drafts.change(name, settled)
        except NotFound:
            log.info("draft is gone", draft=name)
        self._signals.notify(name)

    async def _end(self, dataset: Stored[Dataset], draft: Stored[Draft], ended: Draft) -> None:
        """End a draft that makes no version; not if that was found while somebody was writing one (perhaps its own)."""
        if (await self._repository.datasets.get(dataset.id)).version != dataset.version:
            return  # the next look will tell
        try:
            await self._repository.drafts.save(draft, ended)
        except Conflict:
            return  # it was settled by somebody else; the next look will tell
        self._signals.notify(draft.id)


def _event(plan: Plan) -> NewEvent:
    return NewEvent.of(
        VersionCommitted(
            dataset=plan.dataset,
            version=f"{plan.dataset}/versions/{plan.number}",
            number=plan.number,
            message=plan.message,
            author=plan.author,
            draft=plan.draft,
            records=plan.records,
            added=plan.added,
            changed=plan.changed,
            removed=plan.removed,
            origin=plan.origin,
        )
    )
