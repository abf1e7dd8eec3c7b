"""A small model directory as a built-in writes it, made once a session: for jobs that only have to leave one behind."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.algorithms import job
from penstock.runtime.settings import JobEnvironment


@functools.cache
def model_files() -> dict[str, bytes]:
    """The files of the model directory, by name."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = root / "input" / "train"
        data.mkdir(parents=True)
        rows = [
            {"_key": f"k{n}", "_revision": f"k{n}/1", "x": float(n), "kind": "big" if n > 20 else "small"}
            for n in range(40)
        ]
        pq.write_table(pa.Table.from_pylist(rows), data / "part-00000.parquet")
        (data / "input.json").write_text(json.dumps({"label": "kind"}))
        environment = JobEnvironment(root / "input", root / "output", None, None, None, threads=1)
        assert job.run("logistic-regression", environment) == job.OK
        return {path.name: path.read_bytes() for path in (root / "output" / "model").iterdir()}
