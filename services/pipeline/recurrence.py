"""How often a pipeline ran in the ancestry of an event: what stops a loop, and does not stop siblings.

Eight trials of one study end in one chain; a pipeline that waits for them runs eight times, and none of those runs led
to another. So a chain tells only that there may be a loop; causes tell whether there is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penstock import names
from penstock.errors import InvalidArgument, NotFound
from penstock.events import Event
from services.pipeline.model import Cause, Pipeline
from services.pipeline.repository import Repository

FetchEvent = Callable[[str, int], Awaitable[Event | None]]
MAX_STEPS = 1_000  # events looked at for one decision
_REQUEST = "request:"  # a causation that is no event: somebody asked for it


class _Unknown(Exception):
    """An event whose cause cannot be told."""


@dataclass
class Recurrence:
    """Counts runs; `fetch_event` gives the event of a resource with a sequence, from its owner; None: there is none."""

    repository: Repository
    fetch_event: FetchEvent

    async def count(self, pipeline: Pipeline, cause: Cause) -> int:
        """Runs of `pipeline` that led to `cause`, counted no further than it matters. Raises Unavailable.

        Where an ancestor's cause is unknown (a program outside continued the chain without saying of what), all runs
        of the chain count: a loop must end.
        """
        in_chain = await self._in_chain(pipeline, cause)
        if in_chain < pipeline.max_recurrence:
            return in_chain
        try:
            return await self._in_ancestry(pipeline, cause)
        except _Unknown:
            return in_chain

    async def _in_chain(self, pipeline: Pipeline, cause: Cause) -> int:
        """Runs in the chain of a cause, and in the chains of those runs' causes: never fewer than its ancestors."""
        seen: set[str] = set()
        waiting, count = [cause.correlation_id], 0
        while waiting and count < pipeline.max_recurrence:
            chain = waiting.pop()
            if chain in seen:
                continue
            seen.add(chain)
            async for run in self.repository.runs_of_chain(pipeline.project, chain):
                count += run.pipeline == pipeline.name and not any(c.key == cause.key for c in run.causes)
                if count >= pipeline.max_recurrence:
                    break
                waiting += [c.correlation_id for c in run.causes]
        return count

    async def _in_ancestry(self, pipeline: Pipeline, cause: Cause) -> int:
        """Runs among the ancestors of a cause, which are found by going from each event to what caused it."""
        seen: set[str] = set()
        waiting, count = [_before(cause)], 0
        while waiting and count < pipeline.max_recurrence:
            id = waiting.pop()
            if id in seen or id.startswith(_REQUEST):
                continue
            if len(seen) >= MAX_STEPS:
                raise _Unknown
            seen.add(id)
            resource, sequence = _event_of(id, pipeline.project)
            if resource.kind != "pipeline_run":
                waiting.append(await self._cause_of(str(resource), sequence))
            elif str(resource) not in seen:
                seen.add(str(resource))
                count += resource.parent == pipeline.name
                waiting += [_before(c) for c in await self._causes_of(str(resource))]
        return count

    async def _causes_of(self, run: str) -> tuple[Cause, ...]:
        try:
            return (await self.repository.runs.get(run)).value.causes
        except NotFound as error:
            raise _Unknown from error

    async def _cause_of(self, resource: str, sequence: int) -> str:
        try:
            event = await self.fetch_event(resource, sequence)
        except NotFound as error:
            raise _Unknown from error
        if event is None:
            raise _Unknown
        if not event.causation_id and event.correlation_id != event.id:
            raise _Unknown
        return event.causation_id or _REQUEST


def _before(cause: Cause) -> str:
    """What caused a cause; a request, if it begins its own chain."""
    if not cause.causation_id and cause.correlation_id != cause.key:
        raise _Unknown
    return cause.causation_id or _REQUEST


def _event_of(id: str, project: str) -> tuple[names.ResourceName, int]:
    """The resource and the sequence of an event of this project. Programs outside may claim any cause."""
    resource, _, sequence = id.rpartition("@")
    try:
        name = names.parse(resource)
    except InvalidArgument as error:
        raise _Unknown from error
    if name.project != project or not sequence.isdecimal():
        raise _Unknown
    return name, int(sequence)
