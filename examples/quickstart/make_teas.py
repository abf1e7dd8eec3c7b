"""Writes `teas.csv` and `teas-checked.csv`: invented measurements of dried tea leaves.

What a tea is called depends on how far its leaves were oxidised, so the measurements tell it; but one value in ten is
missing, and six labels of `teas.csv` are wrong, as in real tables. The output is the same at every run.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

FIELDS = ("sample", "garden", "harvest", "oxidation", "moisture", "leaf_mm", "kind")
# kind -> mean oxidation in per cent, moisture in per cent, length of the leaf in millimetres
KINDS = {"green": (8.0, 6.5, 22.0), "oolong": (38.0, 5.4, 31.0), "black": (82.0, 4.1, 15.0)}
GARDENS = ("Hill Row", "Low Field", "Stone Steps")
WRONG = {"t-014": "black", "t-051": "oolong", "t-077": "black", "t-102": "green", "t-140": "green", "t-188": "oolong"}


def tea(chance: random.Random, sample: str) -> dict[str, str]:
    """One measured tea; an empty value is one that nobody wrote down."""
    kind = chance.choice(list(KINDS))
    oxidation, moisture, leaf = KINDS[kind]
    values = {
        "sample": sample,
        "garden": chance.choice(GARDENS),
        "harvest": chance.choice(("spring", "summer", "autumn")),
        "oxidation": f"{min(100.0, max(0.0, chance.gauss(oxidation, 12))):.1f}",
        "moisture": f"{max(1.0, chance.gauss(moisture, 0.8)):.2f}",
        "leaf_mm": f"{max(3.0, chance.gauss(leaf, 5)):.1f}",
        "kind": kind,
    }
    for field in ("oxidation", "moisture", "leaf_mm"):
        if chance.random() < 0.1:
            values[field] = ""
    return values


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """One file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make(folder: Path) -> None:
    """Both files."""
    chance = random.Random(31)
    rows = [tea(chance, f"t-{number:03d}") for number in range(1, 201)]
    for row in rows:
        if row["sample"] in WRONG:
            if row["kind"] == WRONG[row["sample"]]:
                raise ValueError(f"{row['sample']} would be right")
            row["kind"] = WRONG[row["sample"]]
    write(folder / "teas.csv", rows)
    write(folder / "teas-checked.csv", [tea(chance, f"c-{number:03d}") for number in range(1, 81)])


if __name__ == "__main__":
    make(Path(__file__).parent)
