"""`python -m penstock.algorithms NAME`: the command of a job that runs a built-in; `--list` prints the catalogue."""

from __future__ import annotations

import json
import sys

from penstock.algorithms import CATALOGUE, run


def main() -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong usage, parameters or data."""
    arguments = sys.argv[1:]
    if arguments == ["--list"]:
        print(json.dumps([algorithm.to_json() for algorithm in CATALOGUE.values()], indent=1))
        return 0
    if len(arguments) != 1:
        print(f"usage: python -m penstock.algorithms NAME, one of {', '.join(CATALOGUE)}", file=sys.stderr)
        return 2
    return run(arguments[0])


if __name__ == "__main__":
    sys.exit(main())
