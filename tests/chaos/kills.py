"""Who is killed, and when: kill -9 by recorded identity, at instants that a seed chooses over the stages of a demo."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from penstock.backing.records import SUPERVISOR, read_record
from penstock.jobs.attempt import Attempt
from penstock.runner import processes

LOOK = 0.005  # seconds between looks for somebody to kill
JOBS_OF_REACT = 0.4  # the share of the reaction after which its last job may have ended


class Target(Enum):
    """What dies."""

    SERVICES = "the services"
    NATS = "NATS"
    DATABASE = "the database"
    ENVOY = "Envoy"
    SHIM = "a job's shim"
    TRITON = "Triton"
    SUPERVISOR = "penstock up"


_RECORDS = {
    Target.SERVICES: "services",
    Target.NATS: "nats",
    Target.DATABASE: "mongodb",
    Target.ENVOY: "envoy",
    Target.SUPERVISOR: SUPERVISOR,
}
# Where there is somebody to kill.
STAGES: Mapping[Target, Sequence[str]] = {
    Target.SHIM: ("train", "tune", "evaluate", "react"),
    Target.TRITON: ("traffic", "correct", "react"),
}


@dataclass(frozen=True)
class Kill:
    """A kill `delay` seconds into a stage, or as soon after as there is somebody to kill."""

    target: Target
    stage: str
    delay: float

    def __str__(self) -> str:
        return f"{self.target.value} at {self.stage} + {self.delay:.2f} s"


def kill_one(home: Path, target: Target, chance: random.Random) -> int | None:
    """SIGKILL one living process of that kind; its pid, or None if there is none."""
    if target is Target.SHIM:
        return _kill_shim(home, chance)
    found = [_RECORDS[target]] if target in _RECORDS else [path.stem for path in (home / "run").glob("triton-*.json")]
    chance.shuffle(found)
    for name in found:
        record = read_record(home, name)
        if record is not None and record[0].signal(signal.SIGKILL):
            return record[0].pid
    return None


def _kill_shim(home: Path, chance: random.Random) -> int | None:
    folders = [path.parent for path in (home / "jobs").glob("*/*/start.json")]
    chance.shuffle(folders)
    for folder in folders:
        attempt = Attempt(folder)
        identity = attempt.identity("start.json")
        # A shim that has written its result is only cleaning up.
        if identity is not None and attempt.held() and processes.send(identity, signal.SIGKILL):
            return identity.pid
    return None


def plan(chance: random.Random, targets: Sequence[Target], seconds: Mapping[str, float]) -> list[Kill]:
    """An instant for each target, evenly over those of `seconds` (the stages of a demo without faults) that it has."""
    kills = []
    for target in targets:
        stages = {name: length for name, length in seconds.items() if name in STAGES.get(target, seconds)}
        if target is Target.SHIM and "react" in stages:
            stages["react"] *= JOBS_OF_REACT
        [stage] = chance.choices(list(stages), weights=list(stages.values()))
        kills.append(Kill(target, stage, chance.uniform(0, stages[stage])))
    return kills


@dataclass(frozen=True)
class Killed:
    """A kill that was carried out, and when (seconds since the epoch)."""

    kill: Kill
    at: float


@dataclass
class Killer:
    """Carries out kills in a thread, while a demo goes through its stages and says so by `stage`.

    Whoever keeps the others up is started by a person: after its death, by `start_again`.
    """

    home: Path
    start_again: Callable[[], object]
    kills: Sequence[Kill]
    chance: random.Random
    say: Callable[[str], None]
    done: list[Killed] = field(default_factory=list)
    _began: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)
        self._thread.start()

    def stage(self, name: str) -> None:
        """A stage begins."""
        self._began.setdefault(name, time.monotonic())

    def stop(self) -> None:
        """No more kills."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        waiting = list(self.kills)
        while waiting and not self._stop.wait(LOOK):
            for kill in [kill for kill in waiting if self._due(kill)]:
                pid = kill_one(self.home, kill.target, self.chance)
                if pid is not None:
                    self.say(f"killed {kill} (pid {pid})")
                    self.done.append(Killed(kill, time.time()))
                    if kill.target is Target.SUPERVISOR:
                        self.start_again()
                    waiting.remove(kill)

    def _due(self, kill: Kill) -> bool:
        began = self._began.get(kill.stage)
        return began is not None and time.monotonic() >= began + kill.delay
