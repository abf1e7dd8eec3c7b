"""For training code in Python: a thin convenience over the files and variables that a job is given.

    from penstock import run

    table = run.inputs["train"].to_arrow()
    for step in range(run.params().get("steps", 100)):
        run.log_metrics(loss=loss, step=step)
        if run.should_prune():
            break
    run.save_model(onnx_bytes, examples={"input": rows[:8]}, labels=["no", "yes"])

Everything also works by hand, outside a job: inputs are in `inputs`, outputs go to `outputs`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import InvalidArgument, NotFound
from penstock.runtime.settings import JobEnvironment

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Input", "checkpoint_dir", "inputs", "log_metrics", "output_dir", "params", "save_model", "should_prune"]


@dataclass(frozen=True)
class Input:
    """One input: the folder `path` with its files, such as a dataset version's Parquet partitions."""

    name: str
    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, sorted, without `input.json`."""
        return tuple(sorted(p for p in self.path.rglob("*") if p.is_file() and p.name != "input.json"))

    @property
    def meta(self) -> dict[str, Any]:
        """What the platform says about it (dataset, version, label, ...); empty if nothing."""
        file = self.path / "input.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def to_arrow(self) -> pyarrow.Table:
        """All Parquet files as one pyarrow.Table. Raises NotFound if there is none."""
        import pyarrow.parquet

        parts = [file for file in self.files if file.suffix == ".parquet"]
        if not parts:
            raise NotFound(f"The input '{self.name}' has no Parquet files; its files are in {self.path}.")
        tables = [pyarrow.parquet.read_table(part) for part in parts]
        return pyarrow.concat_tables(tables, promote_options="permissive")

    def to_pandas(self) -> Any:
        """The same as a pandas.DataFrame; pandas must be installed."""
        return self.to_arrow().to_pandas()


class _Inputs(Mapping[str, Input]):
    """The job's inputs by name."""

    def __getitem__(self, name: str) -> Input:
        if name not in self._names():
            raise NotFound(f"There is no input '{name}'; there are: {', '.join(self._names()) or 'none'}.")
        return Input(name, JobEnvironment.load().input(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def _names(self) -> list[str]:
        folder = JobEnvironment.load().input_dir
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


inputs: Mapping[str, Input] = _Inputs()


def params() -> dict[str, Any]:
    """The run's parameters; empty if there are none."""
    file = JobEnvironment.load().params_file
    return dict(json.loads(file.read_text())) if file is not None and file.exists() else {}


def log_metrics(*, step: int = 0, **values: float) -> None:
    """Report values of metrics, by name, at a step. NaN and infinities are kept. Outside a job they are printed."""
    for name, value in values.items():
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise InvalidArgument(f"The metric {name} is no number: {value!r}.", field=name)
    line = json.dumps({"step": int(step), "at": time.time(), **{n: _json_number(float(v)) for n, v in values.items()}})
    file = JobEnvironment.load().metrics_file
    if file is None:
        print(line, flush=True)
        return
    # One write: lines of several processes do not mix.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def should_prune() -> bool:
    """Whether the study has given this trial up: end soon, and well. False outside a study."""
    file = JobEnvironment.load().prune_file
    return file is not None and file.exists()


def output_dir() -> Path:
    """Where files go that are to be kept; made if it is not there."""
    folder = JobEnvironment.load().output_dir
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def checkpoint_dir() -> Path:
    """Where to keep what the next attempt can go on from, if this one is lost; made if it is not there."""
    folder = JobEnvironment.load().checkpoint_dir or Path("checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def save_model(
    model: bytes | str | os.PathLike[str],
    *,
    examples: Mapping[str, Any],
    labels: Sequence[int | str] = (),
    task: str = "classification",
    signature: Mapping[str, Any] | None = None,
    framework: Mapping[str, Any] | None = None,
    tolerance: float = 1e-3,
) -> Path:
    """Write the run's model, `model` being ONNX bytes or the path of an ONNX file; returns its folder.

    `examples` are arrays by the name of the model's input, one batch of at least 8 rows; what the model answers to them
    is computed here by onnxruntime, so that whatever serves the model later can be compared. Where onnxruntime is not
    installed, give the `signature` ({"inputs": [{name, datatype, shape}], "outputs": ...}) and, as `examples`,
    {"inputs": [...], "outputs": [...]} as KServe v2 tensors. Raises InvalidArgument that says what is wrong.
    """
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    folder = output_dir() / "model"
    if signature is None:
        # numpy and onnxruntime: not part of the base install.
        from penstock.algorithms.model_writer import write_model

        write_model(folder, content, examples, task=task, labels=labels, framework=framework, tolerance=tolerance)
        return folder
    return _write_described(folder, content, dict(signature), examples, labels, task, framework or {}, tolerance)


def _write_described(
    folder: Path,
    content: bytes,
    signature: dict[str, Any],
    examples: Mapping[str, Any],
    labels: Sequence[int | str],
    task: str,
    framework: Mapping[str, Any],
    tolerance: float,
) -> Path:
    from penstock.algorithms.model_format import CARD_FILE, MODEL_FILE, SCHEMA_VERSION, ModelCard

    card = {
        "schema_version": SCHEMA_VERSION,
        "task": task,
        "signature": signature,
        "labels": list(labels),
        "framework": dict(framework),
        "digests": {MODEL_FILE: "sha256:" + hashlib.sha256(content).hexdigest()},
        "examples": dict(examples),
        "tolerance": tolerance,
    }
    text = json.dumps(card, allow_nan=False)
    ModelCard.parse(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(content)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")
    return folder


def _json_number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
