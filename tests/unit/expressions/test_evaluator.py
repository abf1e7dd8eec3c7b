"""Expressions of users: they answer, or they are refused; they neither end nor stop the process that asks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from penstock.expressions import MAX_CHARS, InvalidExpression, evaluate, evaluator, variables_of

NUMBERS = list(range(1, 201))
ENDLESS = "l.all(a, l.all(b, l.all(c, l.all(d, l.all(e, a + b + c + d + e > 0)))))"
HUGE = "l.map(a, l.map(b, l.map(c, l.map(d, l))))"
DEEP = "event" + ".a" * 20_000


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[evaluator._Evaluator]:
    """A process that no other test asks."""
    made = evaluator._Evaluator()
    monkeypatch.setattr(evaluator, "_EVALUATOR", made)
    yield made
    if made._process is not None:
        with made._process as process:
            process.kill()


def test_values_come_back_as_they_are() -> None:
    variables = {"n": 3, "x": 0.5, "t": "é\n", "l": [1, 2], "m": {"a": None}}
    for expression, value in {
        "n + 1": 4, "x * 2.0": 1.0, "t": "é\n", "l.map(i, i * 2)": [2, 4], "m": {"a": None}, "n > 2 && x < 1.0": True,
        'timestamp("2026-01-02T03:04:05Z") < timestamp("2027-01-01T00:00:00Z")': True,
    }.items():  # fmt: skip
        found = evaluate(expression, variables)
        assert (found, type(found)) == (value, type(value))
    assert variables_of("a.b > c[0] && has(d.e)") == {"a", "c", "d"}


@pytest.mark.parametrize("expression", ["1 +", "nope", "1 / 0", "'a' + 1", "(" * 3_000, "!" * 3_999 + "x"])
def test_what_is_wrong_is_an_error(expression: str) -> None:
    with pytest.raises(InvalidExpression, match=r"."):
        evaluate(expression, {})
    assert evaluate("1 + 1", {}) == 2


@pytest.mark.parametrize(("expression", "said"), [(ENDLESS, "longer than 1 s"), (HUGE, "longer than 1 s|it ends")])
def test_what_would_not_end_is_given_up(own: evaluator._Evaluator, expression: str, said: str) -> None:
    with pytest.raises(InvalidExpression, match=said):
        evaluate(expression, {"l": NUMBERS})
    assert evaluate("size(l)", {"l": NUMBERS}) == 200


def test_others_go_on_while_one_is_evaluated(own: evaluator._Evaluator) -> None:
    """The library keeps the interpreter's lock: in this process nothing else would run meanwhile."""
    refused: list[InvalidExpression] = []

    def ask() -> None:
        try:
            evaluate(ENDLESS, {"l": NUMBERS})
        except InvalidExpression as error:
            refused.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    turns = 0
    while asking.is_alive():
        time.sleep(0.001)
        turns += 1
    assert refused
    assert turns > 50


def test_what_overflows_the_parser_is_refused_unread() -> None:
    with pytest.raises(InvalidExpression, match=f"longer than {MAX_CHARS}"):
        variables_of(DEEP)


def test_without_that_bound_it_ends_its_process_and_not_this_one(
    own: evaluator._Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "MAX_CHARS", 10**6)
    with pytest.raises(InvalidExpression, match="it ends the process"):
        variables_of(DEEP)
    assert variables_of("a + b") == {"a", "b"}


def test_without_that_process_it_ends_this_one() -> None:
    """The negative control: the library alone."""
    code = "import cel, sys; cel.compile(sys.argv[1])"
    assert subprocess.run([sys.executable, "-c", code, DEEP], check=False, capture_output=True).returncode < 0


def test_a_process_that_was_killed_is_started_again(own: evaluator._Evaluator) -> None:
    assert evaluate("1 + 1", {}) == 2
    assert own._process is not None
    os.kill(own._process.pid, 9)
    own._process.wait()
    assert evaluate("1 + 2", {}) == 3


def test_it_ends_with_the_process_that_asked() -> None:
    code = (
        "from penstock.expressions import evaluate, evaluator\n"
        "evaluate('1', {})\nprint(evaluator._EVALUATOR._process.pid, flush=True)\nimport os; os.kill(os.getpid(), 9)"
    )
    asked = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{asked.stdout.strip()}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{asked.stdout.strip()}")
