"""Twenty demos, in each of which processes are killed at random instants: all end like the one in which none is."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.cli.demo.digits import Digits, load_digits
from penstock.cli.platform import ensure_setup
from tests.chaos.conftest import Report
from tests.chaos.demo_world import Outcome, run_demo
from tests.chaos.kills import Target, plan

SEED = 1  # of the digits; the instants have the number of the demo
SERVICES = Target.SERVICES
OTHERS = (Target.NATS, Target.DATABASE, Target.ENVOY, Target.SHIM, Target.TRITON)
DEMOS: Sequence[Sequence[Target]] = [
    *[[SERVICES] * 4] * 8,
    *[[other, other, SERVICES, SERVICES] for other in OTHERS for _ in range(2)],
    *[[SERVICES, *OTHERS, Target.SUPERVISOR]] * 2,
]


@pytest.fixture(scope="session")
def digits() -> Digits:
    """The same for all demos."""
    ensure_setup()
    return load_digits(SEED)


@pytest.fixture(scope="session")
def faultless(digits: Digits, report: Report, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A demo in which nobody is killed."""
    outcome = run_demo(tmp_path_factory.mktemp("faultless"), digits)
    tell(report, "faultless", (), outcome)
    assert outcome.verdict.broken == [] and outcome.failed == []
    return outcome


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(len(DEMOS)))
def test_a_demo_with_kills_ends_as_if_there_had_been_none(
    number: int, digits: Digits, faultless: Outcome, report: Report, tmp_path: Path
) -> None:
    targets = DEMOS[number]
    # The last stage may be over in a moment.
    lengths = {stage: seconds for stage, seconds in faultless.stages.items() if stage != "trace"}
    kills = plan(random.Random(number), targets, lengths)
    outcome = run_demo(tmp_path / "demo", digits, kills, number)
    tell(report, f"{number:02d}", targets, outcome)
    assert outcome.verdict.broken == []
    assert outcome.verdict.digests == faultless.verdict.digests
    assert outcome.unexplained() == []
    shutil.rmtree(tmp_path / "demo")  # what a good demo leaves interests nobody


def tell(report: Report, name: str, targets: Sequence[Target], outcome: Outcome) -> None:
    """A row of the table."""
    killed = ", ".join(f"{target.value} ({count})" for target, count in Counter(targets).items())
    broken = outcome.verdict.broken
    held = "held" if not broken else f"BROKEN: {broken[0]}"
    report.demo(name, killed, f"{outcome.seconds:.0f}", outcome.requests, len(outcome.failed), outcome.wrong, held)
