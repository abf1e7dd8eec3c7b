"""Events from outside: CloudEvents that programs publish to `penstock.<project>.external.>`, checked and kept.

They have no sequence and no order; `(source, id)` tells repeats. What is malformed is a dead letter with the reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import weakref
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from nats.aio.msg import Msg
from nats.js import api

from penstock.errors import InvalidArgument, Unavailable
from penstock.events import subjects
from penstock.events.bus import MESSAGE_ID, Bus
from penstock.events.dead_letters import DeadLetter, DeadLetters, LetterState, Raw
from penstock.events.envelope import Event, attributes_of, encode
from penstock.events.external_form import SUBJECT, decode_external, external_event, external_id
from penstock.events.lane import FAILURES
from penstock.events.pull import ConsumerGone, Puller
from penstock.store import Cause, Database, Rows, current_cause, format_time, now, parse_time

log = logging.getLogger(__name__)

_OPEN, _DONE, _GIVEN_UP = 0, 1, 2  # `handled` of a stored event; what is given up is a dead letter
_SWEPT = 500  # stored events a look
_DECISIONS = 3.0  # seconds between looks at the dead letters
_BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)


class ExternalIntake:
    """Takes events from outside: stores each once, then calls `handler` with it.

    The handler must be idempotent (it may die after its work). After 5 failures the event is a dead letter. What is
    stored and not handled for `overdue` seconds is taken from the database: the stream may have dropped it.
    """

    def __init__(
        self,
        bus: Bus,
        database: Database,
        handler: Callable[[Event], Awaitable[None]] | None = None,
        *,
        name: str = "external-intake",
        retry_delay: float = 1.0,
        overdue: float = 120.0,
    ) -> None:
        self.name = name
        self.dead_letters = DeadLetters(database)
        self._bus = bus
        self._handler = handler
        self._retry_delay = retry_delay
        self._overdue = overdue
        self._rows = Rows(database, "external_events", indexes=("project", "at", "handled"))
        self._failures: dict[str, int] = {}
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def run(self) -> None:
        """Take events for ever; survives the loss of NATS and of the database."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump())
            group.create_task(self._act())
            group.create_task(self._sweep())

    async def publish(self, event: Event) -> Event:
        """Store an event on somebody's behalf (`PublishEvent`), then publish it; answers it as consumers will see it.

        Raises InvalidArgument, Unavailable: then it may be stored all the same; publishing it again is once.
        """
        attributes = attributes_of(encode(event)[0])
        checked = external_event(event.project, attributes, dict(event.data))
        await self._rows.insert([self._row(external_id(checked.project, checked.source, checked.id), checked)])
        message = _message(checked)
        await self._bus.send(message.subject, message.body, message.headers)
        return checked

    async def accept(self, event: Event) -> bool:
        """Store an event and handle it; False if it was known and handled. Raises what the handler raises."""
        key = external_id(event.project, event.source, event.id)
        async with self._turns.setdefault(key, asyncio.Lock()):  # copies of it often come together
            return await self._accept(key, event)

    async def _accept(self, key: str, event: Event) -> bool:
        new = await self._rows.insert([self._row(key, event)])
        if not new and ((await self._rows.get(key)) or {}).get("handled") == _DONE:
            return False
        if self._handler is not None:
            token = current_cause.set(Cause(event.correlation_id, key, event.traceparent))
            try:
                await self._handler(event)
            finally:
                current_cause.reset(token)
        await self._rows.update(key, set={"handled": _DONE})
        return True

    def _row(self, key: str, event: Event) -> dict[str, Any]:
        stored = {**event.__dict__, "time": format_time(event.time), "data": dict(event.data)}
        at = f"{format_time(now())}/{key}"
        return {"_id": key, "project": event.project, "at": at, "event": json.dumps(stored), "handled": _OPEN}

    async def _pump(self) -> None:
        config = api.ConsumerConfig(
            durable_name=self.name,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=60,
            max_deliver=-1,
            max_ack_pending=200,
        )
        failures = 0
        while True:
            try:
                await self._bus.make_consumer(subjects.EXTERNAL_STREAM, config)
                async with Puller(self._bus, subjects.EXTERNAL_STREAM, self.name) as puller:
                    while True:
                        messages = await puller.next()
                        failures = 0
                        await asyncio.gather(*map(self._take, messages))
            except ConsumerGone:
                log.info("consumer %s is made again", self.name)
            except Exception as error:  # noqa: BLE001 (the intake never ends)
                log.warning("%s failed, goes on: %s", self.name, error or type(error).__name__)
            await asyncio.sleep(_BACK_OFF[min(failures, len(_BACK_OFF) - 1)])
            failures += 1

    async def _take(self, message: Msg) -> None:
        raw = Raw(message.subject, message.headers or {}, message.data)
        try:
            event = decode_external(raw.subject, raw.headers, raw.body)
        except InvalidArgument as error:
            await self._bury(raw, error, 1)
            await message.ack()
            return
        if await self._settled(event, raw):
            await message.ack()
        else:
            await message.nak(delay=self._retry_delay)

    async def _settled(self, event: Event, raw: Raw) -> bool:
        """Take an event; whether it is done with: handled, or a dead letter after its last failure."""
        key = external_id(event.project, event.source, event.id)
        try:
            await self.accept(event)
        except Unavailable as error:
            log.warning("%s waits with %s: %s", self.name, event.id, error)
            return False
        except Exception as error:
            self._failures[key] = self._failures.get(key, 0) + 1
            log.warning("%s failed with %s: %s", self.name, event.id, error, exc_info=error)
            if self._failures[key] < FAILURES:
                return False
            await self._bury(raw, error, self._failures.pop(key), event)
            await self._rows.update(key, set={"handled": _GIVEN_UP})
            return True
        self._failures.pop(key, None)
        return True

    async def _sweep(self) -> None:
        """Take what is stored and overdue."""
        while True:
            try:
                latest = format_time(now() - timedelta(seconds=self._overdue))
                for row in await self._rows.find(eq={"handled": _OPEN}, limit=_SWEPT):
                    if row["at"] < latest:
                        event = _stored(row)
                        await self._settled(event, _message(event))
            except Exception as error:  # noqa: BLE001 (the next look comes)
                log.warning("%s could not look for overdue events: %s", self.name, error)
            await asyncio.sleep(self._overdue / 2)

    async def _bury(self, raw: Raw, error: Exception, attempts: int, event: Event | None = None) -> None:
        event = event or _unknown(raw)
        await self.dead_letters.put(
            self.name, event, LetterState.DEAD, f"{type(error).__name__}: {error}", attempts, raw
        )

    async def _act(self) -> None:
        """Act on what operators decide about dead letters."""
        while True:
            try:
                for letter in await self.dead_letters.decided(self.name):
                    await self._decide(letter)
            except Exception as error:  # noqa: BLE001 (the next look comes)
                log.warning("%s could not look at its dead letters: %s", self.name, error)
            await asyncio.sleep(_DECISIONS)

    async def _decide(self, letter: DeadLetter) -> None:
        if letter.state is LetterState.RETRY and letter.raw is not None:
            try:
                await self.accept(decode_external(letter.raw.subject, letter.raw.headers, letter.raw.body))
            except Exception as error:  # noqa: BLE001 (it stays a dead letter, with the new error)
                text = f"{type(error).__name__}: {error}"
                await self.dead_letters.bury_again(letter.id, text, letter.attempts + 1)
                return
        await self.dead_letters.remove(letter.id)


def _message(event: Event) -> Raw:
    """The message of an event that is published on somebody's behalf."""
    headers, body = encode(event)
    headers[MESSAGE_ID] = external_id(event.project, event.source, event.id)
    token = re.sub(r"[^A-Za-z0-9_-]+", "-", event.type).strip("-") or "event"
    return Raw(f"penstock.{event.project}.external.api.{token}", headers, body)


def _stored(row: Mapping[str, Any]) -> Event:
    fields = json.loads(row["event"])
    return Event(**{**fields, "time": parse_time(fields["time"])})


def _unknown(raw: Raw) -> Event:
    """What can be said of a message that is no event."""
    found = SUBJECT.fullmatch(raw.subject)
    id = hashlib.sha256(raw.body).hexdigest()[:24]
    return Event(id, "unknown", raw.subject, "", 0, now(), project=found[1] if found else "")
