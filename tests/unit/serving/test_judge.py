"""What is held against a new revision, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime

from penstock.edge import AccessRecord
from services.serving.judge import Window


def records(
    revision: int, count: int, failed: int = 0, duration: float = 0.01, endpoint: str = "scale", **more: str
) -> list[AccessRecord]:
    """Answers of one revision."""
    return [
        AccessRecord(
            time=datetime.now(UTC),
            method="POST",
            path=more.get("path", f"/v2/models/{endpoint}/infer"),
            status=500 if number < failed else 200,
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
        for number in range(count)
    ]


def verdict(*groups: list[AccessRecord]) -> str:
    window = Window("vision", "scale", new=2, old=1)
    for group in groups:
        window.add(group)
    return window.verdict()


def test_nothing_asked_is_nothing_wrong() -> None:
    assert verdict() == ""
    assert verdict(records(1, 1000)) == ""


def test_failures_are_a_reason_with_figures() -> None:
    assert "5 of its 50 answers failed, while 0 of 100" in verdict(records(1, 100), records(2, 50, failed=5))
    assert "3 of its 3" in verdict(records(2, 3, failed=3))


def test_few_failures_may_be_chance() -> None:
    assert verdict(records(1, 100), records(2, 20, failed=2)) == ""


def test_failures_that_the_old_one_has_too_are_not_the_new_ones_fault() -> None:
    assert verdict(records(1, 100, failed=20), records(2, 50, failed=10)) == ""


def test_answers_that_take_much_longer_are_a_reason() -> None:
    assert "500 ms" in verdict(records(1, 200), records(2, 150, duration=0.5))
    assert verdict(records(1, 200), records(2, 150, duration=0.09)) == ""  # slower, but not by much
    assert verdict(records(1, 200), records(2, 50, duration=0.5)) == ""  # too few to say
    assert verdict(records(2, 500, duration=0.5)) == ""  # nothing to compare with


def test_only_predictions_of_this_endpoint_count() -> None:
    others = [
        records(2, 50, failed=50, endpoint="other"),
        records(2, 50, failed=50, project="other"),
        records(2, 50, failed=50, path="/v2/models/scale/ready"),
        records(3, 50, failed=50),
    ]
    assert verdict(records(2, 50), *others) == ""
