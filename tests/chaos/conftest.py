"""The tables at the end of `make chaos`: what was killed and what came of it, and what each promise rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

_KEY = pytest.StashKey["Report"]()
_HEADINGS = {
    "Demos with kills": ("DEMO", "KILLED", "SECONDS", "REQUESTS", "FAILED", "WRONG", "PROMISES"),
    "A fault at every write": ("SUITE", "TEST", "RESULT"),
    "The store's conformance suite": ("SERVER", "RESULT"),
    "Promises and what they rest on": ("PROMISE", "MECHANISM REMOVED", "THE TEST THAT THEN FAILED", "HOW"),
}


@dataclass
class Report:
    """Rows by table; whatever could not be run has a row that says so."""

    rows: dict[str, list[Sequence[object]]] = field(default_factory=lambda: {title: [] for title in _HEADINGS})

    def demo(self, *cells: object) -> None:
        """A demo and its outcome."""
        self.rows["Demos with kills"].append(cells)

    def suite(self, *cells: object) -> None:
        """A suite that fails at every write in turn."""
        self.rows["A fault at every write"].append(cells)

    def store(self, *cells: object) -> None:
        """A server on which the store's conformance suite was run, or not."""
        self.rows["The store's conformance suite"].append(cells)

    def control(self, *cells: object) -> None:
        """A mechanism without which a test failed, or should have."""
        self.rows["Promises and what they rest on"].append(cells)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Where tests put their rows."""
    return pytestconfig.stash.setdefault(_KEY, Report())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables."""
    for title, rows in config.stash.get(_KEY, Report()).rows.items():
        if rows:
            terminalreporter.write_sep("=", title)
            for line in _aligned([_HEADINGS[title], *rows]):
                terminalreporter.write_line(line)


def _aligned(rows: Sequence[Sequence[object]]) -> list[str]:
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in texts]
