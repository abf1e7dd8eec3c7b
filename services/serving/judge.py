"""Judges a revision that has a part of the traffic by what the edge wrote down of its answers and the old one's."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock.edge import AccessRecord

MIN_FAILED = 3  # one failed answer may be chance
MORE_FAILED = 0.02  # of its answers, beyond the old one's ratio
MIN_TIMED = 100  # a p99 of fewer is their maximum
SLOWER = 3.0  # times the old one's p99, and by
SLOWER_SECONDS = 0.1
KEPT = 10_000  # durations


@dataclass
class Answers:
    """What one revision answered; durations in seconds."""

    count: int = 0
    failed: int = 0
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    @property
    def ratio(self) -> float:
        """How much of it failed."""
        return self.failed / self.count if self.count else 0.0

    @property
    def p99(self) -> float:
        """The 99th percentile of the durations."""
        ordered = sorted(self.durations)
        return ordered[math.ceil(0.99 * len(ordered)) - 1]


@dataclass
class Window:
    """The answers since a step was entered, of the new revision and the old one. `old` 0: there is none."""

    project: str
    endpoint: str
    new: int
    old: int
    answers: dict[int, Answers] = field(default_factory=dict)

    def add(self, records: Iterable[AccessRecord]) -> None:
        """Count what is about these revisions."""
        for record in records:
            ours = (record.project, record.endpoint) == (self.project, self.endpoint) and record.predicting
            if ours and record.revision in (self.new, self.old) and record.revision:
                answers = self.answers.setdefault(record.revision, Answers())
                answers.count += 1
                answers.failed += record.failed
                answers.durations.append(record.duration)

    def verdict(self) -> str:
        """Why the new revision must go; "" while nothing speaks against it."""
        new, old = self.answers.get(self.new, Answers()), self.answers.get(self.old, Answers())
        if new.failed >= MIN_FAILED and new.ratio > old.ratio + MORE_FAILED:
            return (
                f"{new.failed} of its {new.count} answers failed, while {old.failed} of {old.count} failed for the "
                "revision that it was to replace."
            )
        if min(new.count, old.count) >= MIN_TIMED and new.p99 > max(SLOWER * old.p99, old.p99 + SLOWER_SECONDS):
            return (
                f"Its answers take {new.p99 * 1000:.0f} ms (99th percentile of {new.count}), "
                f"the revision that it was to replace takes {old.p99 * 1000:.0f} ms."
            )
        return ""
