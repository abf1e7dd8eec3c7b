"""Generates docs/reference and docs/asyncapi.yaml from the code that they describe.

`--check` writes nothing and fails if what is committed is not what the code gives.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from docgen import algorithms, api, asyncapi, cli, events, settings

DOCS = Path(__file__).resolve().parent

PAGES: dict[str, Callable[[], str]] = {
    "reference/api.md": api.page,
    "reference/cli.md": cli.page,
    "reference/events.md": events.page,
    "reference/algorithms.md": algorithms.page,
    "reference/settings.md": settings.page,
    "asyncapi.yaml": asyncapi.document,
}


def stale(folder: Path) -> list[str]:
    """The pages in `folder` that are missing or not what the code gives."""
    return [name for name, make in PAGES.items() if _read(folder / name) != make()]


def write(folder: Path) -> None:
    """Write all pages below `folder`."""
    for name, make in PAGES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main() -> int:
    """Generate or check, as the arguments say; answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the committed pages are out of step")
    parser.add_argument("--to", type=Path, default=DOCS, metavar="DIR", help="where the pages are (docs)")
    options = parser.parse_args()
    if not options.check:
        write(options.to)
        return 0
    wrong = stale(options.to)
    if wrong:
        print("Generated pages are out of step with the code; run `make docs`:", *wrong, sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
