"""What is proposed follows from the seed and the trials, not from what a process remembers."""

from __future__ import annotations

import pytest

from services.tuning import model
from services.tuning.model import Point, Range, Told, Trial
from services.tuning.sampling import Samplers
from tests.unit.tuning.test_model import NOW, study

SPACE = (
    Range("x", "float", 0.0, 1.0),
    Range("rate", "float", 1e-4, 1.0, log=True),
    Range("n", "int", 1, 64, log=True),
    Range("kind", "categorical", choices=("a", True, 1, 1.5)),
)


def search(sampler: str, *, seed: int = 7, trials: int = 30, restart_every: int = 0) -> list[Point]:
    """The points of a study in which every seventh trial fails."""
    found = study(space=SPACE, sampler=sampler, seed=seed, max_trials=trials)
    samplers, kept, points = Samplers(), dict[int, Trial](), list[Point]()
    for number in range(1, trials + 1):
        if restart_every and number % restart_every == 0:
            samplers = Samplers()
        known = [kept[n] for n in samplers.unknown(found, number)]
        point = samplers.propose(found, number, known)
        told = Told(reason="bad") if number % 7 == 0 else Told(value=-((point["x"] - 0.3) ** 2) - point["n"] / 64)
        kept[number] = model.tell(Trial(f"t{number}", found.name, number, point, {}, NOW), told, NOW)
        points.append(point)
    return points


@pytest.mark.parametrize("sampler", ["TPE", "RANDOM"])
def test_restarts_change_nothing(sampler: str) -> None:
    points = search(sampler)
    assert points == search(sampler, restart_every=3) == search(sampler, restart_every=1)
    assert len({point["x"] for point in points}) == 30


def test_another_seed_gives_other_points() -> None:
    assert search("RANDOM", trials=3) != search("RANDOM", trials=3, seed=8)


def test_tpe_learns_where_it_is_good() -> None:
    points = search("TPE", trials=40)
    assert sum(abs(point["x"] - 0.3) for point in points[-10:]) < sum(abs(point["x"] - 0.3) for point in points[:10])


def test_points_are_in_their_ranges() -> None:
    for point in search("RANDOM"):
        values = {searched.name: searched.value(point[searched.name]) for searched in SPACE}
        assert 0 <= values["x"] <= 1 and 1e-4 <= values["rate"] <= 1
        assert isinstance(values["n"], int) and 1 <= values["n"] <= 64
        assert any(values["kind"] is choice for choice in SPACE[3].choices)


def test_trials_that_run_are_known_to_the_sampler_and_told_later() -> None:
    found, samplers = study(space=SPACE), Samplers()
    first = Trial("t1", found.name, 1, samplers.propose(found, 1, []), {}, NOW)
    assert samplers.unknown(found, 2) == [1]
    second = Trial("t2", found.name, 2, samplers.propose(found, 2, [first]), {}, NOW)
    told = model.tell(first, Told(value=1.0), NOW)
    assert samplers.unknown(found, 3) == [1, 2]
    samplers.propose(found, 3, [told, second])
    assert samplers.unknown(found, 4) == [2, 3]
