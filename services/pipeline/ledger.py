"""The why-ledger: one row per pipeline and event, which says what was decided and which window the event went to.

The row is also the claim on the event: it is written once, by whoever was first, and everybody who handles the same
event follows it. So an event that is delivered twice, to one process or to two, never gets into two windows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from penstock.store import Document, Rows, format_time, now
from services.pipeline.causes import cause_document
from services.pipeline.model import Cause, Outcome


@dataclass(frozen=True)
class Decision:
    """What was decided about an event. `turn` counts the windows that it was meant for."""

    id: str
    outcome: Outcome
    window: str
    turn: int


def digest(text: str) -> str:
    """A short name of something."""
    return hashlib.sha256(text.encode()).hexdigest()[:18]


def decision_id(pipeline: str, cause: Cause) -> str:
    """The row's id; the part after the bar is its id in the API."""
    return f"{pipeline}|{digest(cause.key)}"


class Ledger:
    """All decisions of all pipelines."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def find(self, pipeline: str, cause: Cause) -> Decision | None:
        """What was decided already."""
        row = await self._rows.get(decision_id(pipeline, cause))
        return _decision(row) if row else None

    async def decide(self, pipeline: str, cause: Cause, outcome: Outcome, reason: str, window: str = "") -> Decision:
        """Record a decision unless there is one; answers the one that holds."""
        id = decision_id(pipeline, cause)
        row = {
            "_id": id,
            "pipeline": pipeline,
            "order": f"{cause.time.timestamp():020.6f}-{digest(cause.key)}",
            "decided": format_time(now()),
            "outcome": str(outcome),
            "reason": reason,
            "window": window,
            "turn": 0,
            "run": "",
            "cause": cause_document(cause),
        }
        if await self._rows.insert([row]):
            return _decision(row)
        return _decision(await self._rows.get(id) or row)

    async def move(self, decision: Decision, window: str) -> Decision:
        """Mean another window, since the one before fired without the event; the first to say so decides."""
        after = {"window": window, "turn": decision.turn + 1}
        await self._rows.update(decision.id, expect={"turn": decision.turn}, set=after)
        row = await self._rows.get(decision.id)
        assert row is not None  # rows are never deleted
        return _decision(row)

    async def settle(self, pipeline: str, cause: Cause, outcome: Outcome, reason: str = "", run: str = "") -> None:
        """Record what became of an event that waited in a window."""
        settled = {"outcome": str(outcome), "reason": reason, "run": run, "decided": format_time(now())}
        await self._rows.update(decision_id(pipeline, cause), set=settled)


def _decision(row: Document) -> Decision:
    return Decision(row["_id"], Outcome(row["outcome"]), row["window"], row["turn"])
