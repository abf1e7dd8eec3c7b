"""What filters may say, and what they mean."""

from __future__ import annotations

import pytest

from penstock.errors import InvalidArgument
from services.dataset.filters import bind, fields, holds, parse

RECORD = {
    "label": "7",
    "price": 8.5,
    "count": 7,
    "author": "Kin Ho",
    "tags": ["new", 3],
    "meta": {"lang": "en", "deep": {"x": None, "y": False}},
    "done": False,
    "a.b": 1,
}


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ('label = "7" AND NOT has_mark', True),
        ("label = 7", True),
        ('count = "7"', True),
        ("count != 7", False),
        ("missing != 7", False),
        ("NOT missing = 7", True),
        ("price > 8 AND price <= 8.5", True),
        ('price > "8"', False),
        ("label > 6", False),
        ('label >= "7"', True),
        ('author:"Kin" AND author:Ho', True),
        ("tags:new AND tags:3 AND NOT tags:old", True),
        ("meta:lang AND meta.lang = en", True),
        ("meta.deep.x:*", False),
        ("meta.deep.y:* AND NOT meta.deep.y", True),
        ("has(done) AND NOT done AND -done", True),
        ("done = false", True),
        ("done < true", False),
        ("count = 1 OR count = 7 AND label = 8", False),  # OR binds tighter
        ("(count = 7 AND label = 8) OR count = 7", True),
        ("a.b = 1", True),
        ('"a.b" = 1', True),
        ("author = 'Kin Ho'", True),
        ('author < "Kio"', True),
    ],
)
def test_a_filter_means_what_it_says(filter: str, expected: bool) -> None:
    expression = parse(filter)
    assert expression is not None
    known = {*RECORD, "missing", "has_mark"}
    assert holds(bind(expression, known), RECORD) is expected


def test_no_filter_is_no_filter() -> None:
    assert parse("  ") is None


@pytest.mark.parametrize(
    ("filter", "said"),
    [
        ("price >", "ends too early"),
        ("price ! 3", "character 7"),
        ("AND a", "character 1"),
        ("a = 'x", "character 5"),
        ('a = "\\q"', "bad escape"),
        ("a b", "not expected"),
        ("a = (1)", "not expected"),
        ("(" * 60 + "a" + ")" * 60 + " AND " + "NOT " * 60 + "a", "deeper than 50"),
        ("NOT " * 1900 + "a", "deeper than 50"),
        ("a" * 9000, "longer than"),
    ],
)
def test_a_filter_that_cannot_be_read_says_where(filter: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        parse(filter)
    assert caught.value.violations[0].field == "filter"


def test_an_unknown_column_is_named_with_those_that_there_are() -> None:
    expression = parse("prise > 3 AND author:x")
    assert expression is not None and list(fields(expression)) == [("prise",), ("author",)]
    with pytest.raises(InvalidArgument, match="no column 'prise': the columns are author, price") as caught:
        bind(expression, {"price", "author"})
    assert caught.value.violations[0].field == "filter"
