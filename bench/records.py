"""Made-up records of a plausible shape: some numbers, some text, a category, a flag; the same for every run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEY, LABEL = "id", "grade"
_PLACES = ("north", "south", "east", "west", "harbour", "old town", "station", "market")


def records(number: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """`number` records of eight fields, about 170 bytes as JSON each."""
    rand = random.Random(seed)
    for index in range(number):
        yield {
            KEY: f"r{index:07d}",
            "price": round(rand.uniform(5, 500), 2),
            "weight": round(rand.gauss(70, 12), 3),
            "visits": rand.randrange(1000),
            "place": rand.choice(_PLACES),
            "returning": rand.random() < 0.3,
            "comment": " ".join(rand.choices(_PLACES, k=5)),
            LABEL: rand.choice("abcd"),
        }


def write_jsonl(path: Path, number: int, seed: int = 1) -> Path:
    """The records as a file to import."""
    with path.open("w", encoding="utf-8") as file:
        for record in records(number, seed):
            file.write(json.dumps(record) + "\n")
    return path
