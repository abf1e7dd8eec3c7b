"""Runs in DVC's own environment: `dvc add` of a folder without starting an interpreter for it, as told line by line."""
# Its packages are not in our environment.
# mypy: ignore-errors

import json
import sys
import time

from dvc.repo import Repo


def main() -> None:
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        with Repo(".") as repo:
            repo.add("data")
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


main()
