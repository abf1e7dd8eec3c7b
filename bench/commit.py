"""Committing 50 changed records of 5,000: against DVC, which adds the folder again, and late in a long history."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.environments import peer_python, version_of
from bench.harness import Limit, Options, Result, Row, Spread, interleave, milliseconds, say, seconds
from bench.peer_process import Script
from bench.platform import Platform, running_platform
from bench.records import KEY, LABEL, records, write_jsonl
from penstock.api.dataset.v1 import dataset_service_pb2 as pb
from penstock.rpc.structs import to_struct
from penstock.runtime.settings import whole_environment

CHANGED = 50
AGAINST_DVC, IN_HISTORY = Limit(">=", 20), Limit("<=", 1.3)


class Ours:
    """A dataset, and commits to it."""

    def __init__(self, platform: Platform, name: str, file: Path, number: int) -> None:
        self._platform = platform
        self.data = platform.client.dataset(name)
        self.data.create(key_field=KEY, label_field=LABEL)
        self.data.import_file(file, key=KEY, label=LABEL)
        self._random = random.Random(name)
        self._number = number
        self.edits: list[float] = []  # seconds, beside the commits

    def commit(self) -> float:
        """Seconds of a commit, from the call until it is done. The edit before it is kept in `edits`."""
        keys = self._random.sample(range(self._number), CHANGED)
        price = round(self._random.uniform(5, 500), 4)
        edits = [pb.RecordEdit(key=f"r{key:07d}", patch=to_struct({"price": price})) for key in keys]
        self.edits.append(seconds(lambda: self.data.edit(edits, draft="bench", why="bench")))
        return seconds(lambda: self.data.commit("bench", draft="bench"))

    def measured(self) -> float:
        """The same, and then its Parquet is waited for, so that it does not slow down what is measured next."""
        took = self.commit()
        self.settle()
        return took

    def settle(self) -> None:
        """Wait until the head's Parquet is written."""
        request = pb.GetManifestRequest(name=self.data.version_name(), wait=True)
        self._platform.client.datasets.GetManifest(request, timeout=600)

    def advance(self, version: int) -> None:
        """Commit until the head has that number."""
        for _ in range(version - self.data.get().head):
            self.commit()
        self.settle()


class Dvc:
    """A folder with a file a record, in a DVC repository without Git."""

    def __init__(self, folder: Path, number: int) -> None:
        self._python = str(peer_python("dvc"))
        self._folder = folder
        self._number = number
        self._random = random.Random(1)
        (folder / "data").mkdir()
        for record in records(number):
            self._file(int(record[KEY][1:])).write_text(json.dumps(record), encoding="utf-8")
        self._run("init", "--no-scm")
        for option in ("core.analytics", "core.check_update"):
            self._run("config", option, "false")
        self.add()

    def add(self) -> None:
        """`dvc add data`, as from a shell."""
        self._run("add", "data")

    def change(self) -> None:
        """Change as many files."""
        for key in self._random.sample(range(self._number), CHANGED):
            record = json.loads(self._file(key).read_text(encoding="utf-8"))
            self._file(key).write_text(json.dumps({**record, "price": self._random.random()}), encoding="utf-8")

    def command(self) -> float:
        """Seconds of `dvc add` after a change."""
        self.change()
        return seconds(self.add)

    @contextmanager
    def library(self) -> Iterator[Script]:
        """DVC in a process that has imported it already."""
        script = Path(__file__).parent / "peers" / "dvc_add.py"
        with Script([self._python, str(script)], self._folder) as asked:
            yield asked

    def _file(self, key: int) -> Path:
        return self._folder / "data" / f"r{key:07d}.json"

    def _run(self, *words: str) -> None:
        command = [self._python, "-m", "dvc", *words, "--quiet"]
        # `init` runs before anything can be configured, and would leave a report in the folder for temporary files.
        environment = {**whole_environment(), "DVC_NO_ANALYTICS": "1"}
        subprocess.run(command, cwd=self._folder, check=True, stdout=subprocess.DEVNULL, env=environment)


def measure(options: Options) -> Result:
    """Against DVC's command and its library; then a dataset at version 1,000 against one at version 10."""
    number = options.pick(5_000, 500)
    with running_platform() as platform, tempfile.TemporaryDirectory(prefix="penstock-bench-") as root:
        file = write_jsonl(Path(root) / "records.jsonl", number)
        repository = Path(root) / "dvc"
        repository.mkdir()
        rows = _against_dvc(Ours(platform, "young", file, number), Dvc(repository, number), options)
        rows.append(_in_history(platform, file, number, options))
    return Result("commit", rows, _settings(number))


def _against_dvc(ours: Ours, dvc: Dvc, options: Options) -> list[Row]:
    say("commit: against DVC")
    what = f"commit of {CHANGED} changed records of {ours._number:,}"
    ours.settle()
    command = interleave(ours.measured, dvc.command, options.pick(7, 1))
    edits = ours.edits[-len(command.ours) :]
    with_edit = [b / (a + e) for a, b, e in zip(command.ours, command.peer, edits, strict=True)]
    with dvc.library() as script:

        def warm() -> float:
            dvc.change()
            return float(script.ask()["seconds"])

        library = interleave(ours.measured, warm, options.pick(7, 1))
    theirs = milliseconds(command.peer)
    return [
        Row(f"{what}, `dvc add`", command.speedup(), AGAINST_DVC, ours=milliseconds(command.ours), peer=theirs,
            note="50x aimed at"),
        Row("… our edit of the draft counted too", Spread.of(with_edit), peer=theirs),
        Row("… DVC's library in a warm process", library.speedup(), ours=milliseconds(library.ours),
            peer=milliseconds(library.peer)),
    ]  # fmt: skip


def _in_history(platform: Platform, file: Path, number: int, options: Options) -> Row:
    late = options.pick(1_000, 20)
    say(f"commit: a history of {late:,} versions")
    old, young = Ours(platform, "old", file, number), Ours(platform, "other", file, number)
    old.advance(late)
    young.advance(10)
    found = interleave(old.measured, young.measured, options.pick(15, 1))
    return Row(
        f"commit at version {late:,} / at version 10", found.ratio(), IN_HISTORY, ours=milliseconds(found.ours),
        peer=milliseconds(found.peer), note="two datasets in turns",
    )  # fmt: skip


def _settings(number: int) -> list[str]:
    return [
        "ours: CommitDraft and WatchDraft through Envoy by the SDK, from the call to COMMITTED; one EditRecords has "
        "edited the draft before; the new version's Parquet is waited for between measurements",
        f"peer: DVC {version_of('dvc')}: `python -m dvc add data --quiet`, repository without Git, default cache, "
        f"analytics and update check off; data holds a JSON file for each of {number:,} records, {CHANGED} are "
        "rewritten before each",
    ]
