"""Computes wrong answers and accuracies of a demo again, knowing nothing of Penstock's code but its command line.

    python recompute_demo.py FOLDER   with PENSTOCK_HOME set; FOLDER is what `penstock demo --to` wrote

Uses `penstock model download` for the models, and onnxruntime alone for the answers. Prints JSON.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime


def model_of(revision: int) -> onnxruntime.InferenceSession:
    """The model that a revision serves, downloaded through the API."""
    shown = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "endpoint", "show", "digits", "--output", "json"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    version = next(r["modelVersion"] for r in json.loads(shown)["revisions"] if int(r["number"]) == revision)
    _, _, _, model, _, number = version.split("/")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "penstock.cli", "model", "download", f"{model}@{number}", "--to", folder]
        subprocess.run(command, check=True, capture_output=True)
        return onnxruntime.InferenceSession((Path(folder) / "model.onnx").read_bytes())


def main() -> None:
    lines = (Path(sys.argv[1]) / "requests.jsonl").read_text().splitlines()
    requests = [json.loads(line) for line in lines]
    answered = [request for request in requests if request["prediction"]]
    models: dict[int, onnxruntime.InferenceSession] = {}
    wrong, right, seen = 0, Counter[int](), Counter[int]()
    for request in answered:
        revision = int(request["prediction"].split("/revisions/")[1].split("/")[0])
        if revision not in models:
            models[revision] = model_of(revision)
        values = models[revision].run(["label", "probabilities"], {"pixels": np.array([request["input"]], np.float32)})
        served = {tensor["name"]: tensor["data"] for tensor in request["outputs"]}
        label = int(np.asarray(values[0]).ravel()[0])
        close = np.allclose(np.asarray(values[1]).ravel(), served["probabilities"], atol=1e-4)
        wrong += int(served["label"][0]) != label or not close
        seen[revision] += 1
        right[revision] += int(served["label"][0]) == request["label"]
    first, last = min(seen), max(seen)
    print(
        json.dumps(
            {
                "requests": len(requests),
                "failed_requests": len(requests) - len(answered),
                "wrong_answers": wrong,
                "accuracy_before": right[first] / seen[first],
                "accuracy_after": right[last] / seen[last],
                "per_revision": dict(seen),
            }
        )
    )


if __name__ == "__main__":
    main()
