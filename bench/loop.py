"""From committed data to the first answer of the new model: the pipeline, against the same steps done by hand."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.by_hand import TEST, Subject, wait_for
from bench.harness import Limit, Options, Result, Row, Spread, interleave, say
from bench.platform import Platform, running_platform
from bench.usage import idle_rows
from penstock.cli.demo.digits import Digits, load_digits, write_jsonl
from penstock.cli.demo.traffic import Traffic

LIMIT, NO_FAILURES = Limit("<=", 1.5), Limit("<=", 0, "requests")
PATIENCE = 120.0  # seconds for one turn


class Turns:
    """Measures turns of both sides, under predictions without pause, and counts those that fail."""

    def __init__(self, platform: Platform, digits: Digits) -> None:
        self._client = platform.client
        self._digits = digits
        self.sent = 0
        self.failed = 0
        self.whole: dict[str, list[float]] = {}  # seconds with training, by subject

    def measure(self, subject: Subject, react: Callable[[int], None]) -> float:
        """Seconds from the commit to the first answer of the next revision, minus the training's."""
        traffic = Traffic(self._client, subject.name, self._digits.test)
        traffic.start()
        try:
            wait_for(lambda: traffic.seen, 10, "A first answer")
            before = _newest(traffic)
            version = subject.change()
            began = time.time()  # the traffic's clock
            react(version)
            wait_for(lambda: _newest(traffic) > before, PATIENCE, "An answer of the new model")
            time.sleep(1)  # the old revision is drained meanwhile: that too must fail nothing
        finally:
            traffic.stop()
        self.sent += len(traffic.seen)
        self.failed += sum(1 for request in traffic.seen if request.error)
        answered = [request for request in traffic.seen if request.prediction and request.revision > before]
        took = answered[0].at + answered[0].seconds - began
        self.whole.setdefault(subject.name, []).append(took)
        return took - subject.training_seconds(answered[0].revision)


def _newest(traffic: Traffic) -> int:
    return max((request.revision for request in list(traffic.seen) if request.prediction), default=0)


def measure(options: Options) -> Result:
    """Turns of a dataset with a pipeline and of one without, on one warm platform."""
    with running_platform() as platform, tempfile.TemporaryDirectory(prefix="penstock-bench-") as root:
        say("loop: first models")
        folder, digits = Path(root), load_digits(1)
        test = platform.client.dataset(TEST)
        test.create(key_field="id", label_field="label")
        test.import_file(write_jsonl(folder / "test.jsonl", digits.test), key="id", label="label")
        by_itself = Subject(platform.client, "by-itself", digits.train)
        by_hand = Subject(platform.client, "by-hand", digits.train)
        by_itself.prepare(folder, pipeline=True)
        by_hand.prepare(folder, pipeline=False)
        turns = Turns(platform, digits)
        pairs = options.pick(5, 1)
        say(f"loop: {pairs} pairs of turns")
        found = interleave(
            lambda: turns.measure(by_itself, lambda version: None),
            lambda: turns.measure(by_hand, by_hand.react),
            pairs,
            warm_up=options.pick(1, 0),
        )
        whole = Spread.of(turns.whole[by_itself.name][-pairs:])
        rows = [
            Row("commit to the new model's first answer, minus training", found.ratio(), LIMIT,
                ours=f"{Spread.of(found.ours).median:.2f} s", peer=f"{Spread.of(found.peer).median:.2f} s",
                note=f"with training {whole.median:.2f} s"),
            Row("requests that failed meanwhile", Spread.of([turns.failed]), NO_FAILURES, unit="requests",
                note=f"of {turns.sent:,}"),
            *idle_rows(platform.home, "idle with two endpoints", options),
        ]  # fmt: skip
    return Result("loop", rows, _settings())


def _settings() -> list[str]:
    return [
        "ours: a commit of one label; the pipeline (no debounce) trains, evaluates against the serving model and "
        "deploys in one step; until a client that asks without pause gets the first answer of the new revision",
        "floor: the same on a dataset without a pipeline: a client waits for each step (Watch…) and asks for the next "
        "at once, on the same warm platform; subtracted from both is the time from start to end of the run's attempt",
        "1,400 digits, logistic regression (built in), 397 digits to evaluate on",
    ]
