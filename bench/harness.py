"""What all benches share: interleaved pairs, their ratios, and what a line of the table says.

The machine is never quiet and seldom the same, so nothing here is compared over time: two sides are measured in turns
(A B A B …), each pair gives one ratio, and the table shows the median of the ratios with the lowest and the highest.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Measurement = Callable[[], float]


@dataclass(frozen=True)
class Options:
    """How much is measured: `quick` shows that a bench works, its figures are not worth quoting."""

    quick: bool = False

    def pick(self, usual: int, quick: int) -> int:
        """A size or a number of repetitions."""
        return quick if self.quick else usual


@dataclass(frozen=True)
class Spread:
    """The median of some measurements, with the lowest and the highest. Raises ValueError for none."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of these values."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Limit:
    """A budget: at least (`>=`) or at most (`<=`) `value`, in `unit` (`x` for a ratio)."""

    sign: str
    value: float
    unit: str = "x"

    def met_by(self, value: float) -> bool:
        """Whether a measured value keeps it."""
        return value >= self.value if self.sign == ">=" else value <= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g} {self.unit}"


@dataclass(frozen=True)
class Row:
    """One line of the table. Without a `limit` it is there to understand the others.

    `ours` and `peer` are medians of what was compared, as text with units. `value` None: not measured, `note` says why.
    """

    what: str
    value: Spread | None
    limit: Limit | None = None
    unit: str = "x"
    ours: str = ""
    peer: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """`ok`, `short`, `not measured`, or nothing where there is no budget."""
        if self.value is None:
            return "not measured"
        if self.limit is None:
            return ""
        return "ok" if self.limit.met_by(self.value.median) else "short"


@dataclass(frozen=True)
class Result:
    """What one bench measured: its rows, and each side's command and settings in full."""

    name: str
    rows: Sequence[Row]
    settings: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class Pairs:
    """Two sides measured in turns, in the same unit."""

    ours: Sequence[float]
    peer: Sequence[float]

    def ratio(self) -> Spread:
        """Ours divided by the peer's, pair by pair: for rates (more is better) and for costs (less is better)."""
        return Spread.of([a / b for a, b in zip(self.ours, self.peer, strict=True)])

    def speedup(self) -> Spread:
        """The peer's divided by ours, pair by pair: for durations, how many times faster ours is."""
        return Spread.of([b / a for a, b in zip(self.ours, self.peer, strict=True)])


def interleave(ours: Measurement, peer: Measurement, pairs: int, warm_up: int = 1) -> Pairs:
    """Measure both in turns, after `warm_up` pairs that do not count; each side goes first in every other pair."""
    for _ in range(warm_up):
        ours()
        peer()
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        for side in order:
            found[side].append((ours, peer)[side]())
    return Pairs(*found)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def per_second(values: Sequence[float]) -> str:
    """The median of some rates, as text."""
    return f"{statistics.median(values):,.0f}/s"


def milliseconds(values: Sequence[float]) -> str:
    """The median of some durations in seconds, as text."""
    return f"{statistics.median(values) * 1e3:,.2f} ms"


def say(text: str) -> None:
    """Tell what is going on, beside the table."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
