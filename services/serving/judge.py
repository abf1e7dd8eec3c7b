"""Judges a revision that has a part of the traffic by what the edge saw of its answers and the old one's."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from penstock.edge import AccessRecord, Attempts

MIN_FAILED = 3  # one failed answer may be chance
MORE_FAILED = 0.02  # of its answers, beyond the old one's ratio
MIN_TIMED = 100  # a p99 of fewer is their maximum
SLOWER = 3.0  # times the old one's p99, and by
SLOWER_SECONDS = 0.1
KEPT = 10_000  # durations


@dataclass
class Window:
    """What the new revision and the old one did since a step was entered. `begun` is what was counted before.

    Failures are Envoy's own counts, of each attempt: of a request that the new one did not answer, the log only names
    the old one, which was asked next. Durations, in seconds, are those of the log. `old` 0: there is none.
    """

    project: str
    endpoint: str
    new: int
    old: int
    begun: Mapping[int, Attempts] = field(default_factory=dict)
    counts: dict[int, Attempts] = field(default_factory=dict)
    durations: dict[int, deque[float]] = field(default_factory=dict)

    def count(self, attempts: Mapping[int, Attempts]) -> None:
        """Take in what is counted by now."""
        for revision, found in attempts.items():
            before = self.begun.get(revision, Attempts())
            # A model server that came back elsewhere is counted from 0.
            count, failed = max(0, found.count - before.count), max(0, found.failed - before.failed)
            self.counts[revision] = Attempts(count, failed, found.ejected)

    def add(self, records: Iterable[AccessRecord]) -> None:
        """Take in how long predictions of these revisions took."""
        for record in records:
            ours = (record.project, record.endpoint) == (self.project, self.endpoint) and record.predicting
            if ours and record.revision in (self.new, self.old) and record.revision:
                self.durations.setdefault(record.revision, deque(maxlen=KEPT)).append(record.duration)

    @property
    def ejected(self) -> bool:
        """Whether Envoy leaves the new one out at the moment: then it says nothing for it that it fails nothing."""
        return self.counts.get(self.new, Attempts()).ejected

    def verdict(self) -> str:
        """Why the new revision must go; "" while nothing speaks against it."""
        new, old = self.counts.get(self.new, Attempts()), self.counts.get(self.old, Attempts())
        # What no model can read fails too, whoever is asked: without answers of the old one nobody can tell.
        comparable = not self.old or old.count >= MIN_FAILED
        if comparable and new.failed >= MIN_FAILED and _ratio(new) > _ratio(old) + MORE_FAILED:
            return (
                f"{new.failed} of its {new.count} answers failed, while {old.failed} of {old.count} failed for the "
                "revision that it was to replace."
            )
        times = [self.durations.get(revision, deque[float]()) for revision in (self.new, self.old)]
        if min(map(len, times)) < MIN_TIMED:
            return ""
        ours, theirs = map(_p99, times)
        if ours > max(SLOWER * theirs, theirs + SLOWER_SECONDS):
            return (
                f"Its answers take {ours * 1000:.0f} ms (99th percentile of {len(times[0])}), "
                f"the revision that it was to replace takes {theirs * 1000:.0f} ms."
            )
        return ""


def _ratio(attempts: Attempts) -> float:
    return attempts.failed / attempts.count if attempts.count else 0.0


def _p99(durations: Iterable[float]) -> float:
    ordered = sorted(durations)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]
