"""All items of a paged list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def pages(method: Callable[[Any], Any], request: Any, field: str, limit: int | None = None) -> Iterator[Any]:
    """Yield the items of `field` of each page of a List method until there are no more, or `limit` were given."""
    given = 0
    while limit is None or given < limit:
        page = method(request)
        for item in getattr(page, field):
            yield item
            given += 1
            if given == limit:
                return
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
