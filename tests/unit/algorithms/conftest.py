"""A job's folders as the runner prepares them, and small data sets to learn from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.algorithms import ModelCard, run
from penstock.runtime.settings import JobEnvironment

Record = Mapping[str, Any]
GOOD = [{"x": float(i), "t": f"t{i % 2}", "label": i % 2} for i in range(20)]


@dataclass(frozen=True)
class Job:
    """One job's folder: `inputs/<name>`, `outputs`, parameters and metrics."""

    root: Path

    @property
    def environment(self) -> JobEnvironment:
        return JobEnvironment.load(
            {
                "PENSTOCK_INPUT_DIR": str(self.root / "inputs"),
                "PENSTOCK_OUTPUT_DIR": str(self.root / "outputs"),
                "PENSTOCK_PARAMS": str(self.root / "params.json"),
                "PENSTOCK_METRICS": str(self.root / "metrics.jsonl"),
                "OMP_NUM_THREADS": "1",
            }
        )

    @property
    def output(self) -> Path:
        return self.root / "outputs"

    @property
    def model(self) -> Path:
        return self.output / "model"

    def give(
        self,
        name: str,
        records: Sequence[Record],
        *,
        label: str = "label",
        json_columns: Sequence[str] = (),
        parts: int = 1,
    ) -> Job:
        """Write an input: a column for every field of any record, over `parts` partitions."""
        folder = self.root / "inputs" / name
        folder.mkdir(parents=True)
        fields = dict.fromkeys(field for record in records for field in record)
        columns: dict[str, list[Any]] = {
            "_key": [f"r{index:04d}" for index in range(len(records))],
            "_revision": [f"r{index:04d}/1" for index in range(len(records))],
        }
        for field in fields:
            values = [record.get(field) for record in records]
            encoded = [None if v is None else json.dumps(v) for v in values]
            columns[field] = encoded if field in json_columns else values
        table = pa.table(columns)
        for part in range(parts):
            rows = [row for row in range(len(records)) if row % parts == part]
            pq.write_table(table.take(rows), folder / f"part-{part:05d}.parquet")
        card = {
            "dataset": "d",
            "version": "3",
            "key": "id",
            "label": label,
            "json_columns": list(json_columns),
            "rows": len(records),
        }
        (folder / "input.json").write_text(json.dumps(card))
        return self

    def run(self, name: str, **parameters: Any) -> int:
        (self.root / "params.json").write_text(json.dumps(parameters))
        self.output.mkdir(exist_ok=True)
        return run(name, self.environment)

    def card(self) -> ModelCard:
        return ModelCard.load(self.model)

    def metrics(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of each line of that name."""
        lines = [json.loads(line) for line in (self.root / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["value"]) for line in lines if line["name"] == name]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def flowers(count: int = 200) -> list[dict[str, Any]]:
    """A table with text labels, missing numbers, a categorical column with gaps, booleans, and an identifier."""
    records: list[dict[str, Any]] = []
    for index in range(count):
        kind = index % 3
        records.append(
            {
                "petal": None if index % 11 == 0 else kind * 2.0 + (index % 7) / 10,
                "stem": 10 + (index * 7) % 5,
                "soil": None if index % 13 == 0 else ("clay", "sand", "peat")[(index // 2) % 3],
                "wild": None if index % 17 == 0 else index % 2 == 0,
                "name": f"flower number {index}",
                "species": ("aster", "briar", "clover")[kind],
            }
        )
    return records
