"""Where to search next: Optuna's samplers over the trials that the store has.

The memory here is a cache. What a sampler proposes follows from the trials and from (seed, number) alone, so another
process, or this one after a restart, goes on as if nothing had been.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from services.tuning.model import Point, Range, Study, Trial, TrialState

TPE, RANDOM = "TPE", "RANDOM"
STARTUP_TRIALS = 10  # random ones before TPE models anything; a quarter of a small study


@dataclass
class Memory:
    """One study as Optuna sees it. Its trial n - 1 is our trial n; numbers are dense."""

    study: Any
    size: int = 0
    open: set[int] = field(default_factory=set)

    def unknown(self, number: int) -> list[int]:
        """The trials below `number` of which Optuna does not know the end."""
        return [*sorted(n for n in self.open if n < number), *range(self.size + 1, number)]


class Samplers:
    """Proposes points. Its methods block (Optuna computes): call them in a thread, one at a time for a study."""

    def __init__(self) -> None:
        self._memories: dict[str, Memory] = {}

    def unknown(self, study: Study, number: int) -> list[int]:
        """The numbers of the trials that `propose` needs to be given to propose trial `number`."""
        if study.sampler == RANDOM:
            return []
        memory = self._memories.get(study.name)
        if memory is None or memory.size >= number:
            return list(range(1, number))
        return memory.unknown(number)

    def propose(self, study: Study, number: int, trials: Iterable[Trial]) -> Point:
        """The point of trial `number`, from `trials`: those that `unknown` named, in order."""
        optuna = _optuna()
        memory = self._memories.get(study.name)
        if memory is None or memory.size >= number or study.sampler == RANDOM:
            memory = Memory(optuna.create_study(direction="maximize" if study.maximize else "minimize"))
        distributions = {searched.name: _distribution(searched) for searched in study.space}
        for trial in trials:
            _learn(memory, trial, distributions)
        memory.study.sampler = _sampler(study, number)
        asked = memory.study.ask(distributions)
        memory.size += 1
        memory.open.add(number)
        if study.sampler != RANDOM:
            self._memories[study.name] = memory
        return {name: float(value) for name, value in asked.params.items()}

    def forget(self, name: str) -> None:
        """Drop what is cached of a study: it has ended, or somebody else proposed a trial."""
        self._memories.pop(name, None)


def _learn(memory: Memory, trial: Trial, distributions: dict[str, Any]) -> None:
    optuna = _optuna()
    state = {
        TrialState.RUNNING: optuna.trial.TrialState.RUNNING,
        TrialState.COMPLETED: optuna.trial.TrialState.COMPLETE,
    }.get(trial.state, optuna.trial.TrialState.FAIL)
    if trial.number > memory.size:
        point = {name: _position(distributions[name], value) for name, value in trial.point.items()}
        frozen = optuna.trial.create_trial(
            state=state, value=trial.value, params=point, distributions=distributions if point else {}
        )
        memory.study.add_trial(frozen)
        memory.size += 1
        memory.open.add(trial.number)
    elif trial.state is TrialState.COMPLETED:
        memory.study.tell(trial.number - 1, trial.value)
    elif trial.state is not TrialState.RUNNING:
        memory.study.tell(trial.number - 1, state=state)
    if trial.state is not TrialState.RUNNING:
        memory.open.discard(trial.number)


def _position(distribution: Any, value: float) -> Any:
    return value if isinstance(distribution, _optuna().distributions.FloatDistribution) else int(value)


def _distribution(searched: Range) -> Any:
    """Optuna's distribution. Categories are searched by index: to Optuna, 1 and True would be one value."""
    kinds = _optuna().distributions
    if searched.kind == "categorical":
        return kinds.CategoricalDistribution(tuple(range(len(searched.choices))))
    if searched.kind == "int":
        return kinds.IntDistribution(int(searched.low), int(searched.high), log=searched.log)
    return kinds.FloatDistribution(searched.low, searched.high, log=searched.log)


def _sampler(study: Study, number: int) -> Any:
    samplers = _optuna().samplers
    seed = int.from_bytes(hashlib.sha256(f"{study.seed}/{number}".encode()).digest()[:4], "big")
    if study.sampler == RANDOM:
        return samplers.RandomSampler(seed=seed)
    startup = max(1, min(STARTUP_TRIALS, study.max_trials // 4))
    return samplers.TPESampler(seed=seed, n_startup_trials=startup)


def _optuna() -> Any:
    """Optuna, which takes most of a second to import, once a study needs it."""
    optuna = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
