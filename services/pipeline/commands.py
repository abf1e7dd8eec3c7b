"""The use cases: apply and delete pipelines, cancel and retry runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, replace

from penstock import names
from penstock.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from penstock.events import EVENT_TYPES, NewEvent
from penstock.events.registry import PREFIX, SERVICES, short_type
from penstock.store import Stored, now
from services.pipeline.expressions import (
    STEP_VARIABLES,
    TRIGGER_VARIABLES,
    check_condition,
    check_expression,
    check_references,
)
from services.pipeline.model import DEFAULT_RECURRENCE, Pipeline, PipelineRun, Step, Trigger
from services.pipeline.repository import Repository
from services.pipeline.settings import OUTPUTS, check_settings

MAX_STEPS = 50
_ATTEMPTS = 10  # to change a pipeline that others change, too


def validate(pipeline: Pipeline) -> Pipeline:
    """Raise InvalidArgument, naming the field, for a pipeline that could never work; answers it with its defaults."""
    names.check_id(names.parse(pipeline.name, kind="pipeline", field="pipeline.name").id, "pipeline.name")
    trigger = pipeline.trigger
    if trigger.filter:
        check_condition(trigger.filter, "on.filter", TRIGGER_VARIABLES)
    _check_debounce(trigger)
    if not 1 <= len(pipeline.steps) <= MAX_STEPS:
        raise InvalidArgument(f"A pipeline has 1 to {MAX_STEPS} steps.", field="pipeline.steps")
    known: dict[str, frozenset[str]] = {}
    for index, step in enumerate(pipeline.steps):
        _check_step(step, known, f"steps[{index}]")
        known[step.id] = OUTPUTS[step.action]
    if pipeline.max_recurrence < 0:
        raise InvalidArgument("max_recurrence is 1 or more.", field="pipeline.max_recurrence")
    return replace(
        pipeline,
        trigger=replace(trigger, event=_event_type(trigger.event)),
        max_recurrence=pipeline.max_recurrence or DEFAULT_RECURRENCE,
    )


def _event_type(text: str) -> str:
    """A type as events carry it here: Penstock's own without prefix and version, those of others as they are."""
    if not text:
        raise InvalidArgument("Say on which event type the pipeline runs.", field="on.event")
    # Penstock's own begin with a service; one that it lacks is misspelt rather than somebody else's.
    own = text.startswith(PREFIX) or text.partition(".")[0] in SERVICES
    if own and short_type(text) not in EVENT_TYPES:
        raise InvalidArgument(f"'{text}' is not an event type of Penstock.", field="on.event")
    return short_type(text)


def _check_debounce(trigger: Trigger) -> None:
    quiet, max_wait = trigger.quiet, trigger.max_wait
    if quiet is None:
        return
    if quiet < 0:
        raise InvalidArgument("`quiet` cannot be negative.", field="on.debounce.quiet")
    if not max_wait or max_wait < quiet:
        raise InvalidArgument("A debounce needs `max_wait`, at least as long as `quiet`.", field="on.debounce.max_wait")


def _check_step(step: Step, known: Mapping[str, Set[str]], field: str) -> None:
    # An id is used in expressions as `steps.<id>`, so it must be a CEL identifier as well.
    if not step.id.isidentifier() or not step.id.isascii():
        raise InvalidArgument(f"{field}: '{step.id}' must be a word of letters, digits and '_'.", field=f"{field}.id")
    if step.id in known:
        raise InvalidArgument(f"{field}: there are two steps '{step.id}'.", field=f"{field}.id")
    check_settings(step.action, step.settings, field)
    check_references(step.settings, known, f"{field}.{step.action}")
    if step.condition:
        check_expression(step.condition, known, f"{field}.if")
        check_condition(step.condition, f"{field}.if", STEP_VARIABLES)


@dataclass
class Pipelines:
    """What may be done with pipelines. `wake` makes the driver look."""

    repository: Repository
    wake: asyncio.Event

    async def apply(
        self, name: str, spec: Callable[[Pipeline | None], Pipeline], *, allow_missing: bool, etag: str = ""
    ) -> Stored[Pipeline]:
        """Create or change a pipeline; the same again changes nothing. Raises NotFound without `allow_missing`.

        `spec` answers what it shall be over what it is (None: it is not there); what it raises passes through.
        With the `etag` of what the change was made over: raises Conflict if it is another one by now.
        """
        for _ in range(_ATTEMPTS):
            applied = await self._apply(name, spec, allow_missing=allow_missing, etag=etag)
            if applied is not None:
                return applied
        raise Conflict(f"{name} is being changed by too many others; try again in a moment.")

    async def _apply(
        self, name: str, spec: Callable[[Pipeline | None], Pipeline], *, allow_missing: bool, etag: str
    ) -> Stored[Pipeline] | None:
        """One attempt; None if somebody else changed it meanwhile."""
        try:
            before = await self.repository.pipelines.get(name)
        except NotFound:
            if not allow_missing or etag:
                raise
            first = await asyncio.to_thread(validate, spec(None))  # in a thread: it compiles expressions
            with suppress(AlreadyExists):
                return await self.repository.pipelines.create(name, first, [_applied(first)])
            return None
        before.check_etag(etag)
        old = before.value
        wanted = replace(await asyncio.to_thread(validate, spec(old)), create_time=old.create_time)
        if replace(wanted, generation=old.generation, update_time=old.update_time, author=old.author) == old:
            return before
        changed = replace(wanted, generation=old.generation + 1, update_time=now())
        with suppress(Conflict):
            return await self.repository.pipelines.save(before, changed, [_applied(changed)])
        return None

    async def delete(self, name: str, etag: str = "") -> None:
        """Delete a pipeline. Its runs and decisions stay. Raises Conflict if the `etag` is another one by now."""
        stored = await self.repository.pipelines.get(name)
        stored.check_etag(etag)
        await self.repository.pipelines.delete(stored)

    async def cancel(self, name: str) -> Stored[PipelineRun]:
        """Ask a run to stop; raises FailedPrecondition if it ended."""
        stored = await self.repository.runs.change(name, PipelineRun.cancelling)
        self.wake.set()
        return stored

    async def retry(self, name: str, request_id: str = "") -> Stored[PipelineRun]:
        """Go on with a failed run at the step that failed. The same request again, however it ended, does nothing."""
        stored = await self.repository.runs.change(name, PipelineRun.retried, request_id=request_id or None)
        self.wake.set()
        return stored


def _applied(pipeline: Pipeline) -> NewEvent:
    data = {"pipeline": pipeline.name, "generation": str(pipeline.generation), "subject": pipeline.author}
    return NewEvent("pipeline.applied", data)
