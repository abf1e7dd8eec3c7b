"""Records and filters for property tests: few names and values, so that filters meet what they ask for."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from services.dataset.filters.expression import And, Compare, Expression, Literal, Not, Or, Present, Truthy
from services.dataset.values import Cleaner, Record

FIELDS = ("a", "A", "b.c", "we ird/~", "n")
TEXTS = ("", "7", "x", "xy", "true", "-1.5", "\U0001f600é", 'q"\\', "0", "a/b")
NUMBERS = (0, 1, 7, -1.5, 2.5, 1e300, 2**53, 2**53 - 1, 0.1, 100000)
BIG = (2**53 + 1, 2**62 + 1, -(2**63), 2**63 - 1)

scalars = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.sampled_from(BIG), st.booleans())
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(st.one_of(inner, st.none()), max_size=3),
        st.dictionaries(st.sampled_from(("x", "0", "y/~", "")), st.one_of(inner, st.none()), max_size=3),
    ),
    max_leaves=6,
)


def _record(fields: dict[str, Any]) -> Record:
    return Cleaner().record(fields)


# Some columns of one type, so that every type of column is met; the others are mixed.
records: st.SearchStrategy[Record] = st.fixed_dictionaries(
    {},
    optional={
        "a": values,
        "A": st.sampled_from(TEXTS),
        "b.c": st.sampled_from((*NUMBERS[:4], *BIG)).filter(lambda value: isinstance(value, int)),
        "we ird/~": values,
        "n": st.sampled_from(NUMBERS),
        "flag": st.booleans(),
    },
).map(_record)

literals = st.builds(
    Literal,
    st.one_of(
        st.sampled_from(TEXTS),
        st.sampled_from((*NUMBERS, *BIG)).map(str),
        st.sampled_from(("true", "false", "1.5", "1e30", "-1e30", "9007199254740993", "1e-400")),
    ),
    st.booleans(),
)
paths = st.tuples(st.sampled_from((*FIELDS, "flag"))) | st.tuples(
    st.sampled_from(FIELDS), st.sampled_from(("x", "0", "y/~", ""))
)
leaves: st.SearchStrategy[Expression] = st.one_of(
    st.builds(Compare, paths, st.sampled_from(("=", "!=", "<", "<=", ">", ">=", ":")), literals),
    st.builds(Present, paths),
    st.builds(Truthy, paths),
)
expressions: st.SearchStrategy[Expression] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=4,
)
