"""Aggregates and rows in MongoDB, through a subset of it in which every server agrees.

Nothing else of Penstock talks to the database, and repositories cannot ask what the subset has not.
"""

from penstock.store.aggregates import Aggregates
from penstock.store.codec import Document, Scalar, format_time, now, parse_time
from penstock.store.database import Database, write
from penstock.store.document import Pending, Stored
from penstock.store.outbox import Cause, Fact, current_cause
from penstock.store.query import Page, Span
from penstock.store.rows import Rows, RowUpdate

__all__ = [
    "Aggregates",
    "Cause",
    "Database",
    "Document",
    "Fact",
    "Page",
    "Pending",
    "RowUpdate",
    "Rows",
    "Scalar",
    "Span",
    "Stored",
    "current_cause",
    "format_time",
    "now",
    "parse_time",
    "write",
]
