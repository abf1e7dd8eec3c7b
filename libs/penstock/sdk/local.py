"""A platform on this machine: its home tells whether it is kept up."""

from __future__ import annotations

from pathlib import Path

from penstock.backing.records import SUPERVISOR, read_record


def is_kept_up(home: Path, url: str) -> bool:
    """Whether `url` is the platform of `home`, and its supervisor lives: if it does not answer, it soon will."""
    found = read_record(home, SUPERVISOR)
    return found is not None and url == f"http://127.0.0.1:{found[1].get('port')}" and found[0].alive()
