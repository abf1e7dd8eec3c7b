"""The `penstock` command as pip installs it: with the base install too, which has none of what the commands need."""

from __future__ import annotations

import sys

_EXTRA = ("click", "rich", "yaml")  # what `penstock[cli]` brings


def main() -> None:
    """Run the command line; without the extra, say on stderr how to get it, and exit with 2."""
    try:
        from penstock.cli.main import main as run
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write(f"error: the command line needs '{error.name}': pip install 'penstock[cli]'\n")
        sys.exit(2)
    run()
