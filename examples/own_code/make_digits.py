"""Writes `digits.jsonl` and `heldout.jsonl`: handwritten digits of 8 x 8 pixels, which come with scikit-learn (UCI)."""

import json
from pathlib import Path

from sklearn.datasets import load_digits

TRAIN, HELD_OUT = 600, 200

digits = load_digits()
records = [
    {"id": f"digit-{number:04d}", "pixels": [int(p) for p in pixels], "digit": int(digit)}
    for number, (pixels, digit) in enumerate(zip(digits.data, digits.target, strict=True))
]
for name, part in (("digits", records[:TRAIN]), ("heldout", records[TRAIN : TRAIN + HELD_OUT])):
    Path(f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in part))
