"""One consumer's way through one resource's events: in order, each applied once, dead ones put aside.

Order needs contiguous sequences and somebody who refuses what is ahead: several workers, redeliveries and naks put
messages out of order whatever the locks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, auto

from nats.aio.msg import Msg

from penstock.errors import Unavailable
from penstock.events.cursors import Cursor, Cursors
from penstock.events.dead_letters import DeadLetter, DeadLetters, LetterState, letter_id
from penstock.events.envelope import Event
from penstock.events.figures import EventFigures
from penstock.store import Cause, current_cause

log = logging.getLogger(__name__)

Handler = Callable[[Event], Awaitable[None]]
FetchHistory = Callable[[str, int], Awaitable[list[Event]]]

FAILURES = 5  # of a handler with one event, until it is a dead letter
_FLUSH_EVENTS, _FLUSH_SECONDS = 32, 0.2  # events applied, time passed, until the cursor is stored
_UNAVAILABLE_DELAYS = (0.1, 0.3, 1.0, 2.0, 5.0)


class Verdict(Enum):
    """What to do with an event."""

    OLD = auto()
    NEXT = auto()
    AHEAD = auto()


def judge(sequence: int, cursor: int) -> Verdict:
    """Compare an event's sequence with the last one taken."""
    if sequence <= cursor:
        return Verdict.OLD
    return Verdict.NEXT if sequence == cursor + 1 else Verdict.AHEAD


@dataclass(frozen=True, eq=False)
class Delivery:
    """An event, and the message that has to be acknowledged for it."""

    event: Event
    message: Msg


@dataclass(frozen=True)
class Work:
    """What all lanes of a consumer share."""

    consumer: str
    handler: Handler
    cursors: Cursors
    letters: DeadLetters
    not_before: datetime | None  # a consumer with effects applies nothing from before it was made
    fetch_history: FetchHistory | None
    patience: float  # seconds until a gap is filled from its owner
    resignation: float  # seconds until a gap that nobody can fill counts as the beginning
    retry_delays: Sequence[float]  # seconds after the first, second, … failure
    settle: Callable[[Sequence[Delivery]], Awaitable[None]]  # acknowledge
    refuse: Callable[[Sequence[Delivery]], Awaitable[None]]  # have it delivered again later
    figures: EventFigures = field(default_factory=EventFigures)
    gaps: dict[str, float] = field(default_factory=dict)  # resource -> when its gap was first seen


class Lane:
    """Applies a resource's events while there are any."""

    def __init__(self, work: Work, cursor: Cursor) -> None:
        self._work = work
        self._resource = cursor.resource
        self._cursor = cursor  # as stored
        self._waiting: list[Delivery] = []
        self._batch: list[Delivery] = []
        self._decided = False

    def put(self, delivery: Delivery) -> None:
        """Add a message."""
        self._waiting.append(delivery)

    def decide(self) -> None:
        """Look at this resource's dead letters: an operator has decided."""
        self._decided = True

    def left(self) -> list[Delivery]:
        """What `run` did not get done when it raised; some of it may have been settled."""
        return [*self._batch, *self._waiting]

    async def run(self) -> None:
        """Until nothing is left. Raises what the store raises."""
        while self._waiting or self._decided:
            if self._decided:
                self._decided = False
                await self._release()
            self._batch, self._waiting = sorted(self._waiting, key=lambda d: d.event.sequence), []
            await self._take(self._batch)
            self._batch = []

    async def _take(self, batch: Sequence[Delivery]) -> None:
        """Apply what is next; acknowledge once the cursor is stored; refuse what is ahead."""
        cursor, done, flushed = self._cursor, list[Delivery](), time.monotonic()
        for delivery in batch:
            event = delivery.event
            if judge(event.sequence, cursor.sequence) is Verdict.AHEAD:
                cursor = await self._fill(await self._reread(cursor), event)
            verdict = judge(event.sequence, cursor.sequence)
            if verdict is Verdict.AHEAD:
                await self._work.refuse([delivery])
                continue
            if verdict is Verdict.NEXT:
                cursor = await self._apply(cursor, event)
            done.append(delivery)
            if len(done) >= _FLUSH_EVENTS or time.monotonic() - flushed > _FLUSH_SECONDS:
                await self._store(cursor)
                cursor, flushed = self._cursor, time.monotonic()
                await self._work.settle(done)
                done = []
        await self._store(cursor)
        await self._work.settle(done)

    async def _reread(self, cursor: Cursor) -> Cursor:
        """The stored cursor, if another process has brought it further."""
        stored = (await self._work.cursors.load([self._resource]))[self._resource]
        if stored.sequence <= cursor.sequence:
            return cursor
        self._cursor = stored
        return stored

    async def _store(self, cursor: Cursor) -> None:
        self._cursor = await self._work.cursors.move(self._cursor, cursor)

    async def _apply(self, cursor: Cursor, event: Event) -> Cursor:
        """The cursor after the event was handled, skipped, or put with the dead letters."""
        work = self._work
        work.gaps.pop(self._resource, None)
        after = replace(cursor, sequence=event.sequence, failures=0)
        if cursor.parked:
            await work.letters.put(work.consumer, event, LetterState.WAITING)
            # Another process may have freed the resource meanwhile: then nobody would look for what waits.
            self._decided = self._decided or not await work.letters.hold(work.consumer, self._resource)
            return after
        if work.not_before is not None and event.time < work.not_before:
            return after
        failures = cursor.failures
        while (error := await self._handle(event)) is not None:
            failures += 1
            work.figures.handled(work.consumer, "failed" if failures < FAILURES else "dead")
            if failures >= FAILURES:
                await work.letters.put(work.consumer, event, LetterState.DEAD, _text(error), failures)
                log.error("%s gave up %s: %s", work.consumer, event.id, _text(error))
                return replace(after, parked=True)
            # Kept, so that an event which kills the process cannot do so for ever.
            await self._store(replace(cursor, failures=failures))
            after = replace(after, stored=True)
            await asyncio.sleep(work.retry_delays[min(failures, len(work.retry_delays)) - 1])
        if failures:
            await work.letters.remove(letter_id(work.consumer, event.id))  # of one who died before storing the cursor
        work.figures.handled(work.consumer, "applied")
        return after

    async def _handle(self, event: Event) -> Exception | None:
        """Call the handler as caused by the event; its error, if it failed. What is unavailable is waited for."""
        token = current_cause.set(Cause(event.correlation_id or event.id, event.id, event.traceparent))
        attempt = 0
        try:
            while True:
                try:
                    await self._work.handler(event)
                except Unavailable as error:
                    delay = _UNAVAILABLE_DELAYS[min(attempt, len(_UNAVAILABLE_DELAYS) - 1)]
                    log.warning("%s waits %.1f s with %s: %s", self._work.consumer, delay, event.id, error)
                    attempt += 1
                    await asyncio.sleep(delay)
                except Exception as error:
                    log.warning("%s failed with %s: %s", self._work.consumer, event.id, _text(error), exc_info=error)
                    return error
                else:
                    return None
        finally:
            current_cause.reset(token)

    async def _fill(self, cursor: Cursor, event: Event) -> Cursor:
        """Bridge a gap before `event` that stays, from the owner's events; the cursor as far as that came."""
        work = self._work
        waited = time.monotonic() - work.gaps.setdefault(self._resource, time.monotonic())
        if waited < work.patience:
            return cursor
        if work.fetch_history is None:
            # Never seen, nobody to ask, and whatever a dead process had would have come again by now: begin here.
            if not cursor.stored and waited > work.resignation:
                log.warning("%s begins %s at %d", work.consumer, self._resource, event.sequence)
                return replace(cursor, sequence=event.sequence - 1)
            log.warning("%s misses events of %s after %d", work.consumer, self._resource, cursor.sequence)
            return cursor
        while cursor.sequence + 1 < event.sequence:
            before = cursor.sequence
            try:
                history = await work.fetch_history(self._resource, before)
            except Exception as error:  # noqa: BLE001 (asked again when the message comes again)
                log.warning("%s could not ask for the events of %s: %s", work.consumer, self._resource, error)
                return cursor
            for missed in sorted(history, key=lambda e: e.sequence):
                if missed.sequence < event.sequence and judge(missed.sequence, cursor.sequence) is Verdict.NEXT:
                    cursor = await self._apply(cursor, missed)
            if cursor.sequence == before:
                log.error("the owner of %s has no events after %d", self._resource, before)
                break
        return cursor

    async def _release(self) -> None:
        """Act on what was decided: from the first letter on, until one is (again) dead or none is left.

        The cursor is freed before the last letter goes: so while a resource is parked, a letter says why.
        """
        letters = self._work.letters
        found = await letters.of_resource(self._work.consumer, self._resource)
        parked = self._cursor.parked
        for letter in found:
            if letter.state is LetterState.DEAD:
                return
            cursor = replace(self._cursor, parked=parked and letter is not found[-1])
            verdict = judge(letter.event.sequence, cursor.sequence)
            # A cursor past it that is not parked: it was done with, but for the removal.
            if parked or verdict is not Verdict.OLD:
                if letter.state is not LetterState.DROP and not await self._try_again(letter):
                    return
                if verdict is Verdict.NEXT:
                    # Whoever put it here died before it could store the cursor.
                    cursor = replace(cursor, sequence=letter.event.sequence, failures=0)
                await self._store(cursor)
            await letters.remove(letter.id)
        if not found:
            await self._store(replace(self._cursor, parked=False))
        self._decided = bool(found) and bool(await letters.of_resource(self._work.consumer, self._resource))

    async def _try_again(self, letter: DeadLetter) -> bool:
        attempts = letter.attempts
        for delay in (*self._work.retry_delays, None):
            error = await self._handle(letter.event)
            if error is None:
                return True
            attempts += 1
            # What an operator had tried again fails at once; what only waited has all its attempts.
            if letter.state is LetterState.RETRY or delay is None:
                await self._work.letters.bury_again(letter.id, _text(error), attempts)
                return False
            await asyncio.sleep(delay)
        return False


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
