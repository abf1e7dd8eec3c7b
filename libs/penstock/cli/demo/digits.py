"""The demo's data: the 1,797 handwritten digits that come with scikit-learn (UCI), a part of them mislabelled."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN = 1_400
WRONG = 0.08  # the share of labels that annotators got wrong


@dataclass(frozen=True)
class Digits:
    """Records `{id, pixels (64 numbers of 0 to 16), label}`; `corrections` maps the mislabelled keys to the truth."""

    train: tuple[Mapping[str, Any], ...]
    test: tuple[Mapping[str, Any], ...]
    corrections: Mapping[str, int]


def load_digits(seed: int) -> Digits:
    """Split and mislabel the digits, the same for the same seed."""
    from sklearn.datasets import load_digits as bundled  # 1.4 s that only the demo should pay

    source = bundled()
    records: list[dict[str, Any]] = [
        {"id": f"digit-{number:04d}", "pixels": [int(p) for p in pixels], "label": int(label)}
        for number, (pixels, label) in enumerate(zip(source.data, source.target, strict=True))
    ]
    chance = random.Random(seed)
    chance.shuffle(records)
    train, test = records[:TRAIN], records[TRAIN:]
    corrections: dict[str, int] = {}
    for index in sorted(chance.sample(range(TRAIN), round(TRAIN * WRONG))):
        truth = train[index]["label"]
        corrections[str(train[index]["id"])] = truth
        train[index] = {**train[index], "label": chance.choice([d for d in range(10) if d != truth])}
    return Digits(tuple(train), tuple(test), corrections)


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write records, one a line."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")
    return path


def infer_request(pixels: list[int]) -> dict[str, Any]:
    """The KServe v2 request for one digit."""
    return {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": [float(p) for p in pixels]}]}
