"""What is held against a new revision, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime

from penstock.edge import AccessRecord, Attempts
from services.serving.judge import Window


def records(
    revision: int, count: int, duration: float = 0.01, endpoint: str = "scale", **more: str
) -> list[AccessRecord]:
    """Answers of one revision."""
    record = AccessRecord(
        time=datetime.now(UTC),
        method="POST",
        path=more.get("path", f"/v2/models/{endpoint}/infer"),
        status=200,
        grpc_status=None,
        duration=duration,
        attempts=1,
        host="127.0.0.1:1",
        project=more.get("project", "vision"),
        endpoint=endpoint,
        revision=revision,
        request_id="",
        flags="",
    )
    return [record] * count


def timed(*groups: list[AccessRecord]) -> str:
    """The verdict over these durations."""
    window = Window("vision", "scale", new=2, old=1)
    for group in groups:
        window.add(group)
    return window.verdict()


GOOD = Attempts(100)


def counted(new: Attempts, old: Attempts = GOOD, begun: dict[int, Attempts] | None = None) -> str:
    """The verdict over these counts."""
    window = Window("vision", "scale", new=2, old=1, begun=begun or {})
    window.count({1: Attempts(), 2: Attempts()})
    window.count({1: old, 2: new})
    return window.verdict()


def test_nothing_asked_is_nothing_wrong() -> None:
    assert timed() == counted(Attempts()) == counted(Attempts(), Attempts()) == ""
    assert timed(records(1, 1000)) == ""


def test_failures_are_a_reason_with_figures() -> None:
    assert "5 of its 50 answers failed, while 0 of 100" in counted(Attempts(50, 5))
    assert "3 of its 3" in counted(Attempts(3, 3), Attempts(3))


def test_few_failures_may_be_chance() -> None:
    assert counted(Attempts(20, 2)) == ""


def test_failures_that_the_old_one_has_too_are_not_the_new_ones_fault() -> None:
    assert counted(Attempts(50, 10), Attempts(100, 20)) == ""


def test_what_was_counted_before_the_step_does_not_count() -> None:
    before = {1: Attempts(500, 500), 2: Attempts(40, 30)}
    assert counted(Attempts(90, 30), Attempts(600, 500), before) == ""
    assert "5 of its 50 answers failed, while 0 of 100" in counted(Attempts(90, 35), Attempts(600, 500), before)
    assert "3 of its 3 answers failed, while 0 of 4" in counted(Attempts(43, 33), Attempts(504, 500), before)
    assert "3 of its 3 answers failed, while 2 of 7" in counted(Attempts(3, 3), Attempts(7, 2))


def test_failures_say_nothing_where_the_old_one_was_not_asked_the_like() -> None:
    """A client that sends what no model can read makes any revision fail."""
    assert counted(Attempts(9, 9), Attempts(2)) == ""
    assert counted(Attempts(9, 9), Attempts(9, 9)) == ""


def test_one_that_is_ejected_is_known() -> None:
    window = Window("vision", "scale", new=2, old=1)
    assert not window.ejected
    window.count({1: Attempts(ejected=True), 2: Attempts()})
    assert not window.ejected
    window.count({1: Attempts(), 2: Attempts(2, 2, ejected=True)})
    assert window.ejected and window.verdict() == ""


def test_answers_that_take_much_longer_are_a_reason() -> None:
    assert "500 ms" in timed(records(1, 200), records(2, 150, duration=0.5))
    assert timed(records(1, 200), records(2, 150, duration=0.09)) == ""  # slower, but not by much
    assert timed(records(1, 200), records(2, 50, duration=0.5)) == ""  # too few to say
    assert timed(records(2, 500, duration=0.5)) == ""  # nothing to compare with


def test_only_predictions_of_this_endpoint_count() -> None:
    others = [
        records(2, 150, duration=0.5, endpoint="other"),
        records(2, 150, duration=0.5, project="other"),
        records(2, 150, duration=0.5, path="/v2/models/scale/ready"),
        records(3, 150, duration=0.5),
    ]
    assert timed(records(1, 200), records(2, 150), *others) == ""
