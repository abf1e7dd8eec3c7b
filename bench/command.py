"""The command: which benches, how thoroughly, and what is printed."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

from bench.harness import Options, Result, Row, say
from bench.machine import machine_line
from bench.report import document, text
from penstock.errors import PenstockError

# By the name that one gives on the command line: the module that has `measure`.
BENCHES = {
    "import": "record_import",
    "commit": "commit",
    "metrics": "metrics",
    "events": "events",
    "inference": "inference",
    "loop": "loop",
    "startup": "startup",
    "demo": "demo",
}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits with 2 if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small and once: shows that the benches work")
    parser.add_argument("--output", "-o", choices=("table", "json"), default="table")
    given = parser.parse_args(argv)
    for name in given.names:
        if name not in BENCHES:
            parser.error(f"there is no bench '{name}'; there are {', '.join(BENCHES)}")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if a bench could not be run, 0 otherwise, whatever it measured."""
    given = arguments(argv)
    machine, broken = machine_line(), False
    results = []
    for name in given.names or BENCHES:
        result = run(name, Options(quick=given.quick))
        broken = broken or result is None
        results.append(result or Result(name, [Row(name, None, note="it could not be run; see above")]))
    if given.output == "json":
        print(json.dumps(document(results, machine, given.quick), indent=2, ensure_ascii=False))
    else:
        print(text(results, machine, given.quick))
    return 1 if broken else 0


def run(name: str, options: Options) -> Result | None:
    """One bench, imported only now: each needs other packages. None if it failed, which is told."""
    try:
        result: Result = importlib.import_module(f"bench.{BENCHES[name]}").measure(options)
    except PenstockError as error:
        print(f"bench: {name} could not be run: {error}", file=sys.stderr, flush=True)
        return None
    say(f"{name}: done")
    return result
