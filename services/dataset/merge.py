"""Three-way merges of one record: what a draft did to it, on top of what newer versions did."""

from __future__ import annotations

from dataclasses import dataclass

from services.dataset.values import Record, encode

_ABSENT = object()


@dataclass(frozen=True)
class Merged:
    """A merged record (None: it is no more), with mine where both changed the same; `conflict` says that they did.

    `fields` are the top-level fields that both changed differently; none of them if one side deleted the record.
    """

    record: Record | None
    conflict: bool = False
    fields: tuple[str, ...] = ()


def merge(base: Record | None, theirs: Record | None, mine: Record | None) -> Merged:
    """Merge by top-level field. Whoever left the record as it was in `base` gives way."""
    if same(theirs, mine) or same(base, mine):
        return Merged(theirs)
    if same(base, theirs):
        return Merged(mine)
    if theirs is None or mine is None:
        return Merged(mine, conflict=True)
    return _merge_fields(base or {}, theirs, mine)


def _merge_fields(base: Record, theirs: Record, mine: Record) -> Merged:
    merged = dict(theirs)
    conflicts = []
    for name in changed_fields(base, mine):
        wanted = mine.get(name, _ABSENT)
        found = theirs.get(name, _ABSENT)
        if not same(found, wanted) and not same(found, base.get(name, _ABSENT)):
            conflicts.append(name)
        if wanted is _ABSENT:
            merged.pop(name, None)
        else:
            merged[name] = wanted
    return Merged(merged, conflict=bool(conflicts), fields=tuple(conflicts))


def changed_fields(before: Record | None, after: Record | None) -> tuple[str, ...]:
    """The top-level fields in which two records differ, sorted."""
    one, two = before or {}, after or {}
    return tuple(sorted(n for n in one.keys() | two.keys() if not same(one.get(n, _ABSENT), two.get(n, _ABSENT))))


def same(one: object, two: object) -> bool:
    """Whether two values are the same JSON."""
    # True == 1 in Python, at any depth; their texts differ.
    return one is two or (one == two and encode(one) == encode(two))
