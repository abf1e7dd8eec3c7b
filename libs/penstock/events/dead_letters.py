"""Dead letters: events that a handler could not take, kept with the error, holding up their own resource only.

Behind the dead one, later events of the same resource wait in the same collection, in order. An operator's decision
is written into the row; the consumer acts on it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from penstock.errors import FailedPrecondition, NotFound
from penstock.events.envelope import Event
from penstock.store import Database, Page, Rows, format_time, now, parse_time


class LetterState(Enum):
    """DEAD waits for an operator, RETRY and DROP for the consumer, WAITING for the letters before it."""

    DEAD = "DEAD"
    RETRY = "RETRY"
    DROP = "DROP"
    WAITING = "WAITING"


@dataclass(frozen=True)
class Raw:
    """A message as it came, where it is not known to be an event."""

    subject: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class DeadLetter:
    """An event that one consumer could not take."""

    id: str
    consumer: str
    resource: str
    event: Event
    error: str
    attempts: int
    state: LetterState
    time: datetime  # when it was put here
    raw: Raw | None = None


_OPEN = (LetterState.DEAD, LetterState.RETRY, LetterState.DROP)  # what an operator sees


class DeadLetters:
    """The dead letters of one service's consumers."""

    def __init__(self, database: Database) -> None:
        self._rows = Rows(database, "dead_letters", indexes=("consumer", "resource", "state", "at"))

    async def list(self, *, limit: int = 100, after: str | None = None) -> Page[DeadLetter]:
        """Those an operator may decide on, oldest first."""
        page = await self._rows.find(any_of={"state": _OPEN}, order_by="at", limit=limit, after=after)
        return Page([_letter(row) for row in page], page.next)

    async def get(self, id: str) -> DeadLetter:
        """One letter; raises NotFound."""
        row = await self._rows.get(id)
        if row is None:
            raise NotFound(f"There is no dead letter {id}: it may have been retried or dropped.")
        return _letter(row)

    async def retry(self, id: str) -> DeadLetter:
        """Have the consumer try it again, with what waits behind it. Raises NotFound or FailedPrecondition."""
        return await self._decide(id, LetterState.RETRY)

    async def drop(self, id: str) -> DeadLetter:
        """Give it up; its resource goes on without it. Raises NotFound or FailedPrecondition."""
        return await self._decide(id, LetterState.DROP)

    async def _decide(self, id: str, state: LetterState) -> DeadLetter:
        done = await self._rows.update(id, expect={"state": LetterState.DEAD}, set={"state": state})
        letter = await self.get(id)
        if not done and letter.state is not state:
            raise FailedPrecondition(f"Dead letter {id} is {letter.state.value}: only a DEAD one can be decided on.")
        return letter

    # What follows is for consumers.

    async def put(
        self,
        consumer: str,
        event: Event,
        state: LetterState,
        error: str = "",
        attempts: int = 0,
        raw: Raw | None = None,
    ) -> str:
        """Keep an event; again is once. Returns the letter's id."""
        id = letter_id(consumer, event.id, raw)
        row = {
            "_id": id,
            "consumer": consumer,
            "resource": event.subject or event.id,
            "state": state,
            "at": f"{format_time(now())}/{id}",
            "error": error[:4_000],
            "attempts": attempts,
            "event": _event_fields(event),
            "raw": _raw_fields(raw) if raw else None,
        }
        await self._rows.insert([row])
        return id

    async def of_resource(self, consumer: str, resource: str) -> Sequence[DeadLetter]:
        """All letters of a consumer and resource, in order."""
        rows = await self._rows.find(eq={"consumer": consumer, "resource": resource})
        return sorted(map(_letter, rows), key=lambda letter: letter.event.sequence)

    async def decided(self, consumer: str) -> Sequence[DeadLetter]:
        """What the consumer has to act on."""
        states = [LetterState.RETRY, LetterState.DROP]
        return [_letter(row) for row in await self._rows.find(eq={"consumer": consumer}, any_of={"state": states})]

    async def hold(self, consumer: str, resource: str) -> bool:
        """Whether a letter holds up this resource; else what waits there waits for nothing."""
        chosen = {"consumer": consumer, "resource": resource}
        return bool(await self._rows.find(eq=chosen, any_of={"state": _OPEN}, limit=1))

    async def waiting(self, consumer: str) -> set[str]:
        """Resources that have events waiting."""
        rows = await self._rows.find(eq={"consumer": consumer, "state": LetterState.WAITING})
        return {row["resource"] for row in rows}

    async def bury_again(self, id: str, error: str, attempts: int) -> None:
        """A letter that was tried failed again."""
        await self._rows.update(id, set={"state": LetterState.DEAD, "error": error[:4_000], "attempts": attempts})

    async def remove(self, id: str) -> None:
        """A letter is done with."""
        await self._rows.delete([id])


def letter_id(consumer: str, event_id: str, raw: Raw | None = None) -> str:
    """The id of the letter of an event: fit for a path segment, the same each time."""
    message = json.dumps(_raw_fields(raw), sort_keys=True) if raw else ""
    return "d" + hashlib.sha256(f"{consumer}\n{event_id}\n{message}".encode()).hexdigest()[:20]


def _event_fields(event: Event) -> dict[str, Any]:
    return {**event.__dict__, "data": dict(event.data), "time": format_time(event.time)}


def _raw_fields(raw: Raw) -> dict[str, Any]:
    return {"subject": raw.subject, "headers": dict(raw.headers), "body": base64.b64encode(raw.body).decode()}


def _letter(row: dict[str, Any]) -> DeadLetter:
    event = Event(**{**row["event"], "time": parse_time(row["event"]["time"])})
    raw = row.get("raw")
    return DeadLetter(
        id=row["_id"],
        consumer=row["consumer"],
        resource=row["resource"],
        event=event,
        error=row["error"],
        attempts=row["attempts"],
        state=LetterState(row["state"]),
        time=parse_time(row["at"].split("/")[0]),
        raw=Raw(raw["subject"], raw["headers"], base64.b64decode(raw["body"])) if raw else None,
    )
