"""Follow long work to its end: watch streams that are opened again when they break."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from penstock.errors import PenstockError, Unavailable

T = TypeVar("T")

PATIENCE = 60.0  # seconds for which an unreachable platform is asked again
FIRST_PATIENCE = 2.0  # and one that has never answered: it is probably not running
CONNECTED = 15.0  # a stream that broke after as many was open, though nothing came: no call takes as long to fail


def follow(
    watch: Callable[[], Any], *, patience: float = PATIENCE, is_there: Callable[[], bool] = lambda: True
) -> Iterator[T]:
    """Yield each state of a resource until the server ends the stream at a final one.

    `watch` opens the stream. A platform that cannot be reached is asked again for `patience` seconds, then
    Unavailable is raised; the work itself goes on in the platform either way. One that has never answered, as
    `is_there` (`Client.is_there`) tells, is given up sooner.
    """
    failing: float | None = None  # since when
    while True:
        opened = time.monotonic()
        try:
            for update in watch():
                failing = None
                yield update
            return
        except Unavailable:
            now = time.monotonic()
            if failing is None or now - opened > CONNECTED:
                failing = now
            if now - failing >= (patience if is_there() else min(patience, FIRST_PATIENCE)):
                raise
            time.sleep(0.3)


def wait(watch: Callable[[], Any], on_update: Callable[[T], None] | None = None) -> T:
    """Follow to the end and answer the final state; `on_update` sees each state on the way."""
    last: T | None = None
    for last in follow(watch):
        if on_update:
            on_update(last)
    if last is None:
        raise PenstockError("The platform ended the stream without a state; ask again.")
    return last
