"""CSV, parsed by pyarrow: a first pass infers the type of each column over the whole file, a second makes records.

pyarrow's own inference looks at the first block only and takes `007` for 7. Here a column is numeric only if every
value is written as a number is; whatever else stays the text that it was. Empty is missing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from services.dataset.ingest.chunks import ChunkFile
from services.dataset.ingest.rows import BadFile, Row, make_row
from services.dataset.values import MAX_BYTES, Cleaner

_BLOCK = 16 * 1024 * 1024
_INTEGER = r"^-?(0|[1-9][0-9]{0,18})$"
_NUMBER = r"^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_LONG = r"^[+-]?[0-9]{19,}$"  # numbers to look at, which a double would change
_BOOLEAN = r"^([Tt]rue|TRUE|[Ff]alse|FALSE)$"
_INFINITE = r"^[+-]?([Ii]nf|[Ii]nfinity|INF)$"
_NAN = pa.array(["NaN", "nan", "NAN"])
# How other programs write a missing number; in a column of text they are text (Namibia is NA).
_MISSING = pa.array(["NaN", "nan", "NAN", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "None", "-"])


class Kind(Enum):
    """What a column holds."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"


class Csv:
    """Reads comma-separated values with a header line, RFC 4180 quoting and UTF-8."""

    def __init__(self, file: ChunkFile, key_field: str) -> None:
        self.cleaner = Cleaner()
        self._file = file
        self._key_field = key_field
        self._names: list[str] = []

    def where(self, place: int) -> str:
        """The line on which a row (counted from 1, without the header) begins; reads the file again to find it."""
        return f"line {self._line(place)}"

    def rows(self) -> Iterator[Row]:
        """The rows; `place` counts them from 1. Raises BadFile."""
        self._names = self._header()
        self._check_quotes()
        kinds = self._infer()
        number = 0
        for batch in self._batches():
            columns = [self._values(batch.column(i), kinds[name]) for i, name in enumerate(self._names)]
            for values in zip(*columns, strict=True):
                number += 1
                record = {name: value for name, value in zip(self._names, values, strict=True) if value is not None}
                try:
                    yield make_row(number, record, self._key_field, self.cleaner, "")
                except BadFile as error:
                    raise BadFile(f"{self.where(number)}{error.message}") from error

    def _header(self) -> list[str]:
        first = self._file.buffered().readline(MAX_BYTES).removeprefix(b"\xef\xbb\xbf")
        if not first.strip():
            raise BadFile("The file is empty (or its first line is): the first line must name the columns.")
        # The wrapper decodes more than the first line: what is wrong further down is not this line's fault.
        text = io.TextIOWrapper(self._file.buffered(), "utf-8-sig", errors="surrogateescape", newline="")
        try:
            names = next(csv.reader(text))
            "".join(names).encode()
        except UnicodeEncodeError as error:
            raise BadFile("line 1 is not UTF-8: save the file as UTF-8.") from error
        except csv.Error as error:
            raise BadFile(f"line 1: {error}.") from error
        for index, name in enumerate(names, 1):
            if not name:
                raise BadFile(f"line 1: column {index} has no name.")
            if names.count(name) > 1:
                raise BadFile(f"line 1: the column '{name}' is there twice: rename one.")
        if self._key_field not in names:
            raise BadFile(f"There is no key column '{self._key_field}': the columns are {', '.join(names)[:1000]}.")
        return names

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """The file as batches of text columns, null where empty."""
        bad: list[pacsv.InvalidRow] = []

        def remember(row: pacsv.InvalidRow) -> str:
            bad.append(row)
            return "error"

        try:
            reader = pacsv.open_csv(
                pa.PythonFile(self._file.buffered(), mode="r"),
                read_options=pacsv.ReadOptions(use_threads=False, block_size=_BLOCK),
                parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=remember),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(self._names, pa.string()), null_values=[""], strings_can_be_null=True
                ),
            )
            yield from reader
        except pa.ArrowException as error:
            raise BadFile(self._problem(error, bad)) from error

    def _problem(self, error: Exception, bad: Sequence[pacsv.InvalidRow]) -> str:
        if bad:
            row = bad[0]
            place = self.where(row.number - 1) if row.number else "a line"
            return f"{place}: {row.actual_columns} columns instead of {row.expected_columns}: {row.text[:100]!r}."
        if "UTF8" in str(error):
            return self._not_utf8()
        self._check_quotes(always=True)
        return f"The CSV file cannot be read: {str(error)[:300]}"

    def _not_utf8(self) -> str:
        for number, line in enumerate(self._file.buffered(), 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number} is not UTF-8 (byte {error.start + 1}): save the file as UTF-8."
        return "The file is not UTF-8: save it as UTF-8."

    def _check_quotes(self, *, always: bool = False) -> None:
        """Find a quoted value that does not end, which pyarrow would take with all lines that follow."""
        quotes = 0
        lines = self._file.buffered()
        while block := lines.read(1 << 20):
            quotes += block.count(b'"')
        if quotes % 2 == 0 and not always:
            return
        text = io.TextIOWrapper(self._file.buffered(), "utf-8-sig", errors="replace", newline="")
        reader = csv.reader(text, strict=True)
        line = 1
        try:
            for _ in reader:
                line = reader.line_num + 1
        except csv.Error as error:
            raise BadFile(f"line {line}: a quoted value does not end, or ends before a comma ({error}).") from error

    def _line(self, row: int) -> int:
        """The line on which row `row` (1 is the first after the header) begins."""
        text = io.TextIOWrapper(self._file.buffered(), "utf-8-sig", errors="replace", newline="")
        reader = csv.reader(text)
        begin, seen = 1, -1
        for values in reader:
            seen += bool(values)
            if seen == row:
                return begin
            begin = reader.line_num + 1
        return begin

    def _infer(self) -> dict[str, Kind]:
        candidates = {name: set(Kind) for name in self._names}
        candidates[self._key_field] = {Kind.TEXT}
        seen = dict.fromkeys(self._names, 0)
        for batch in self._batches():
            for name, column in zip(self._names, batch.columns, strict=True):
                if len(candidates[name]) > 1:
                    values = pc.drop_null(column)
                    booleans = _all(values, _BOOLEAN)
                    numbers = values.filter(pc.invert(pc.is_in(values, _MISSING)))
                    seen[name] += len(numbers)
                    candidates[name] -= _excluded(numbers, booleans)
        return {name: _best(candidates[name], seen[name]) for name in self._names}

    def _values(self, column: pa.Array, kind: Kind) -> list[Any]:
        if kind is Kind.TEXT:
            return list(column.to_pylist())
        if kind is Kind.BOOLEAN:
            return [None if text is None else text[0] in "tT" for text in column.to_pylist()]
        nan = pc.is_in(column, _NAN)
        self.cleaner.missing += pc.sum(nan).as_py() or 0
        cleared = pc.if_else(pc.fill_null(pc.is_in(column, _MISSING), True), pa.scalar(None, pa.string()), column)
        if kind is Kind.INTEGER:
            return list(cleared.cast(pa.int64()).to_pylist())
        return [None if text is None else float(text) for text in cleared.to_pylist()]


def _all(values: pa.Array, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(values, pattern)).as_py() is not False


def _excluded(values: pa.Array, booleans: bool) -> set[Kind]:
    """The kinds that a column with these values cannot be."""
    excluded = set() if booleans else {Kind.BOOLEAN}
    if not _all(values, _INTEGER) or not _fits(values):
        excluded.add(Kind.INTEGER)
    finite = values.filter(pc.invert(pc.match_substring_regex(values, _INFINITE)))
    if not _all(finite, _NUMBER) or (len(finite) and not _fits(finite)) or (not len(finite) and len(values)):
        excluded.add(Kind.NUMBER)
    return excluded


def _fits(values: pa.Array) -> bool:
    """Whether no value is a whole number of so many digits that 64 bits cannot hold it."""
    long = values.filter(pc.match_substring_regex(values, _LONG))
    return all(-(2**63) <= int(text) < 2**63 for text in long.to_pylist())


def _best(candidates: set[Kind], seen: int) -> Kind:
    if not seen:
        return Kind.TEXT
    return next(kind for kind in (Kind.BOOLEAN, Kind.INTEGER, Kind.NUMBER, Kind.TEXT) if kind in candidates)
