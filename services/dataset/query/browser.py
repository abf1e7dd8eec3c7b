"""Pages of records: by key from the database, filtered or sorted from the partitions; tokens that stay valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.dataset.model import Dataset
from services.dataset.query.order import Order, Position
from services.dataset.query.records import cut_to_size, list_by_key
from services.dataset.query.scan import Query, Scanner
from services.dataset.query.view import Found, Views


@dataclass(frozen=True)
class Page:
    """Some records; `next` is the position of the next page, None at the end."""

    dataset: Dataset
    records: Sequence[Found]
    next: Any


@dataclass(frozen=True)
class Browser:
    """Lists records of versions and drafts."""

    views: Views
    scanner: Scanner

    async def page(
        self, dataset: str, *, version: int, draft: str, filter: str, order_by: str, limit: int, token: Any
    ) -> Page:
        """A page. Raises InvalidArgument (filter, order), NotFound.

        All pages after the first show what the first saw: the version, or the draft, as it was then.
        """
        snapshot, after = token or (None, None)
        view = await self.views.open(dataset, version, draft, snapshot)
        order = Order.parse(order_by)
        if not filter.strip() and not order.field:
            items = await list_by_key(self.views.repository, view, after, limit)
            records, more = cut_to_size(items, limit)
            return Page(view.dataset, records, [view.snapshot, records[-1].key] if more else None)
        query = Query(filter, order, limit, Position(*after) if after else None)
        hits = await self.scanner.run(view, query)
        records, more = cut_to_size([found for _, found in hits], limit)
        last = hits[len(records) - 1][0] if more else None
        return Page(view.dataset, records, [view.snapshot, [last.rank, last.value, last.key]] if last else None)
