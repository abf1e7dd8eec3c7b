"""Records by key: one, or a page of a version or draft, from the database."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.errors import NotFound
from services.dataset.query.view import Found, View, found, of_change
from services.dataset.repository import Repository

MAX_PAGE_BYTES = 4 * 1024 * 1024  # of JSON in one answer; what is over waits for the next page


async def get_record(repository: Repository, view: View, key: str) -> Found:
    """The record. Raises NotFound."""
    if key in view.overlay:
        change = view.overlay[key]
        if change.text is not None:
            return of_change(key, change)
    else:
        stored = await repository.at(view.dataset.name, view.version, [key])
        if key in stored:
            return found(stored[key], view.dataset.head)
    raise NotFound(f"{view.dataset.id} has no record '{key}' there.")


async def list_by_key(repository: Repository, view: View, after: str | None, limit: int) -> list[Found]:
    """The next records after a key, one more than `limit` if there are more."""
    wanted = limit + 1
    items: list[Found] = []
    while len(items) < wanted:
        stored = await repository.page(view.dataset.name, view.version, after, wanted) if view.version else []
        horizon = stored[-1].key if len(stored) == wanted else None
        items += [found(each, view.dataset.head) for each in stored if each.key not in view.overlay]
        items += _between(view, after, horizon)
        if horizon is None:
            break
        after = horizon
    return sorted(items, key=lambda each: each.key)[:wanted]


def _between(view: View, after: str | None, horizon: str | None) -> Iterator[Found]:
    for key, change in view.overlay.items():
        if change.text is not None and (after is None or key > after) and (horizon is None or key <= horizon):
            yield of_change(key, change)


def cut_to_size(items: list[Found], limit: int) -> tuple[list[Found], bool]:
    """At most `limit` records and about 4 MiB, at least one; and whether any were left."""
    size = 0
    for index, item in enumerate(items[:limit]):
        size += len(item.text)
        if size > MAX_PAGE_BYTES and index:
            return items[:index], True
    return items[:limit], len(items) > limit


async def list_revisions(repository: Repository, view: View, key: str) -> list[Found]:
    """All revisions of a record up to the head, newest first. Raises NotFound."""
    head = view.dataset.head
    history = [r for r in await repository.history(view.dataset.name, key) if r.start <= head]
    if not history:
        raise NotFound(f"{view.dataset.id} has never had a record '{key}'.")
    return [found(revision, head) for revision in reversed(history)]
