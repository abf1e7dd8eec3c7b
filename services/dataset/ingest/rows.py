"""What the readers of formats have in common: rows with the place they come from, and errors that name it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from penstock import names
from penstock.errors import InvalidArgument, PenstockError
from services.dataset.values import BadValue, Cleaner, Record, encode, key_text


class BadFile(InvalidArgument):
    """An imported file that cannot be taken; the message names the line and what to do."""


@dataclass(frozen=True)
class Row:
    """One record of a file: where it was (line, or row of a Parquet file), its key and its canonical JSON text."""

    place: int
    key: str
    text: str


class Reader(Protocol):
    """A format: its rows in order. `where` says a place to people."""

    cleaner: Cleaner

    def rows(self) -> Iterator[Row]:
        """The rows. Raises BadFile."""
        ...

    def where(self, place: int) -> str:
        """Such as "line 7"."""
        ...


def make_row(place: int, record: Record, key_field: str, cleaner: Cleaner, where: str) -> Row:
    """The row of a record as it was parsed. Raises BadFile naming line and field."""
    try:
        clean = cleaner.record(record)
        if key_field not in clean:
            known = ", ".join(clean)[:1000] or "(none)"
            raise BadFile(f"{where}: the key field '{key_field}' is missing; the fields are {known}.")
        key = names.check_key(key_text(clean[key_field]), key_field)
        return Row(place, key, encode(clean))
    except BadValue as error:
        raise BadFile(f"{where}: field '{error.path or key_field}': {error.problem}.") from error
    except BadFile:
        raise
    except PenstockError as error:
        raise BadFile(f"{where}: field '{key_field}': {error.message}") from error
