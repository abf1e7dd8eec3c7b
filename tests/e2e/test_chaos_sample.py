"""One demo in which everything is killed, at random instants; `make chaos` has twenty of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from penstock.backing.triton_environment import TritonEnvironment
from penstock.cli.demo.digits import load_digits
from tests.chaos.demo_world import run_demo
from tests.chaos.kills import Target, plan

SEED = 8


@pytest.mark.timeout(400)
def test_a_demo_in_which_everything_is_killed_ends_as_if_nothing_had_been(
    tmp_path: Path, triton_environment: TritonEnvironment
) -> None:
    chance = random.Random(SEED)
    kills = plan(chance, [Target.SHIM], {"train": 1.2, "tune": 5.5})
    kills += plan(chance, [Target.SERVICES, Target.NATS, Target.DATABASE], {"traffic": 1.5, "correct": 0.6})
    kills += plan(chance, [Target.SERVICES, Target.ENVOY, Target.TRITON], {"react": 4.5})
    outcome = run_demo(tmp_path / "demo", load_digits(1), kills, SEED)
    print(outcome.line())
    assert outcome.verdict.broken == []
    assert outcome.wrong == 0 and outcome.requests > 300
    # Killing the services, NATS and the database fails no prediction.
    assert outcome.unexplained() == []
