"""A whole demo on a platform of its own, with kills meanwhile, and what came of it."""

from __future__ import annotations

import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from penstock.backing.ports import free_port
from penstock.cli.demo.digits import Digits
from penstock.cli.demo.loop import Loop
from penstock.cli.demo.recompute import Model, wrong_answers
from penstock.cli.demo.traffic import Request, Traffic
from penstock.cli.platform import start_detached, stop_platform
from penstock.sdk.client import Client
from tests.chaos.checks import Verdict, check_completions, check_data, check_events
from tests.chaos.kills import Kill, Killed, Killer, Target

STOPS_WITHIN = 20.0  # seconds in which nothing of a stopped platform may be left


@dataclass(frozen=True)
class Outcome:
    """What came of one demo."""

    verdict: Verdict
    kills: Sequence[Killed]
    requests: int
    failed: Sequence[Request]
    wrong: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)

    def unexplained(self) -> list[str]:
        """Failures of requests before the door, or the only one who answers, was killed."""
        fatal = min((k.at for k in self.kills if k.kill.target in (Target.ENVOY, Target.TRITON)), default=math.inf)
        return [request.error for request in self.failed if request.at + request.seconds < fatal]

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.seconds:5.1f} s, {len(self.kills)} kills, {self.requests} requests, {len(self.failed)} failed, "
            f"{self.wrong} wrong, {len(self.verdict.broken)} promises broken"
        )


@dataclass
class WatchedLoop(Loop):
    """The demo's loop, which says where it is."""

    on_stage: Callable[[str], None] = lambda name: None

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[None]:
        """Time a stage, as the loop does."""
        self.on_stage(name)
        with super().stage(name, text):
            yield

    def _correct_under(self, traffic: Traffic) -> None:
        self.on_stage("traffic")
        began = time.monotonic()
        super()._correct_under(traffic)
        # What the other stages do not count: the traffic before the correction, and after the reaction.
        within = self.seconds["correct"] + self.seconds["react"]
        self.seconds["traffic"] = round(time.monotonic() - began - within, 2)


def run_demo(
    folder: Path, digits: Digits, kills: Sequence[Kill] = (), seed: int = 0, say: Callable[[str], None] = print
) -> Outcome:
    """Start a platform, run the demo with the kills, check everything, stop it; raises what a user would see."""
    home, port = folder / "home", free_port()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    clock: Callable[[str], None] = lambda text: say(f"{time.monotonic() - began:6.1f} s  {text}")  # noqa: E731
    killer = Killer(home, lambda: start_detached(home, port), kills, random.Random(seed), clock)
    try:
        url = start_detached(home, port)
        with Client(url, (home / "token").read_text().strip(), "default") as client:
            loop = WatchedLoop(client, digits, folder, clock, on_stage=killer.stage)
            killer.start()
            try:
                traffic = loop.run()
            finally:
                killer.stop()
            return _judged(client, home, loop, traffic, killer, began)
    finally:
        stop_platform(home)
        shutil.copytree(home / "logs", folder / "logs", dirs_exist_ok=True)
        left = left_of(home)
        shutil.rmtree(home, ignore_errors=True)
        assert not left, f"still running: {left}"


def _judged(client: Client, home: Path, loop: Loop, traffic: Traffic, killer: Killer, began: float) -> Outcome:
    verdict = Verdict()
    models = {revision: Model(path) for revision, path in loop.download_models().items()}
    wrong = wrong_answers(traffic.seen, models)
    check_data(client, loop, verdict)
    check_completions(client, home, verdict)
    check_events(home, verdict)
    verdict.expect(wrong == 0, f"{wrong} answers are not the model's")
    kinds = {node.kind for node in loop.facts["graph"].nodes}
    needed = {"revision", "model_version", "run", "dataset_version", "pipeline_run"}
    verdict.expect(kinds >= needed, f"the trace knows only {sorted(kinds)}")
    traced = {record.key for record in loop.facts["records"].records}
    verdict.expect(traced == set(loop.digits.corrections), "the trace names other records than the corrected ones")
    for kill in set(killer.kills) - {done.kill for done in killer.done}:
        verdict.broken.append(f"nobody was there to be killed: {kill}")
    failed = [request for request in traffic.seen if not request.prediction]
    return Outcome(
        verdict, tuple(killer.done), len(traffic.seen), failed, wrong, time.monotonic() - began, dict(loop.seconds)
    )


def left_of(home: Path) -> list[str]:
    """Processes that have to do with a home, after a while in which they may go."""
    deadline = time.monotonic() + STOPS_WITHIN
    while (found := list(_processes(str(home)))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _processes(home: str) -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = os.readlink(entry / "cwd")
        except OSError:
            continue
        if home in command or place.startswith(home):
            yield f"{entry.name} {command[:120]}"
