"""Following long work at a terminal: one line that moves, plain lines elsewhere, and a way out that loses nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import click

from penstock.sdk.following import follow

T = TypeVar("T")


class Progress:
    """Shows the latest state of something on stderr: overwritten in a terminal, a line per change elsewhere.

    What cannot be shown (on a full disk, say) stops no work.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = ""

    def show(self, text: str, fraction: float | None = None) -> None:
        """Show `text`, with a bar if a fraction of 0 to 1 is known."""
        if fraction is not None and self._terminal:
            filled = round(24 * min(max(fraction, 0.0), 1.0))
            text = f"[{'█' * filled}{'·' * (24 - filled)}] {text}"
        if text == self._last:
            return
        self._last = text
        with suppress(OSError):
            if self._terminal:
                click.echo(f"\r\x1b[K{text}", nl=False, err=True)
            elif fraction is None:
                click.echo(text, err=True)

    def done(self) -> None:
        """Leave the line."""
        if self._terminal and self._last:
            with suppress(OSError):
                click.echo("", err=True)


def follow_work(watch: Callable[[], Any], line: Callable[[T], str], how_to_follow: str) -> T:
    """Follow a resource to its end, showing `line(state)`; ctrl-C leaves the work running and says how to follow it."""
    progress = Progress()
    last: T | None = None
    try:
        state: T
        for state in follow(watch):
            last = state
            progress.show(line(state))
    except KeyboardInterrupt:
        progress.done()
        click.echo(f"It goes on without you. To follow it: {how_to_follow}", err=True)
        raise
    progress.done()
    assert last is not None  # a watch stream begins with the present state
    return last
