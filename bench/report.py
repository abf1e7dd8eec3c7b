"""The table, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.harness import Result, Row, Spread

HEADINGS = ("WHAT", "BUDGET", "MEASURED", "RANGE", "", "OURS", "PEER")
HOW_TO_READ = "docs/how-to/read-the-benchmarks.md"


def text(results: Sequence[Result], machine: str, quick: bool) -> str:
    """The whole report: each bench's rows, then its commands and settings, then the machine."""
    widths = _widths(results)
    lines = [_line(HEADINGS, widths)]
    for result in results:
        lines += ["", f"[{result.name}]"]
        for row in result.rows:
            lines.append(_line(_cells(row), widths))
            if row.note:
                lines.append(f"    ({row.note})")
    for result in results:
        lines += ["", f"[{result.name}] commands and settings", *(f"  - {setting}" for setting in result.settings)]
    lines += ["", f"machine: {machine}", f"how to read this: {HOW_TO_READ}"]
    if quick:
        lines.append("measured with --quick: these figures show that the benches work, and nothing else")
    return "\n".join(lines)


def document(results: Sequence[Result], machine: str, quick: bool) -> dict[str, Any]:
    """The same facts as JSON."""
    return {"machine": machine, "quick": quick, "results": [_result(result) for result in results]}


def _result(result: Result) -> dict[str, Any]:
    rows = [
        {**asdict(row), "verdict": row.verdict, "limit": str(row.limit) if row.limit else None} for row in result.rows
    ]
    return {"name": result.name, "rows": rows, "settings": list(result.settings)}


def _cells(row: Row) -> tuple[str, ...]:
    limit = str(row.limit) if row.limit else ""
    if row.value is None:
        return (row.what, limit, "", "", row.verdict, row.ours, row.peer)
    measured = f"{number(row.value.median)} {row.unit}"
    return (row.what, limit, measured, _range(row.value), row.verdict, row.ours, row.peer)


def _range(value: Spread) -> str:
    return f"{number(value.low)} to {number(value.high)}, n={value.count}" if value.count > 1 else ""


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _widths(results: Sequence[Result]) -> list[int]:
    table = [HEADINGS, *(_cells(row) for result in results for row in result.rows)]
    return [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
