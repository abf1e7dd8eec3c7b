"""Predictions with the stock `tritonclient`, over HTTP and over gRPC. It knows nothing of Penstock.

Needs PENSTOCK_URL and PENSTOCK_TOKEN, and the endpoint `teas` of the quickstart.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

ENDPOINT = "teas"
NUMBERS = {"oxidation": [41.5, 88.0], "moisture": [5.1, float("nan")], "leaf_mm": [30.0, 14.5]}
TEXTS = {"garden": ["Low Field", "Hill Row"], "harvest": ["summer", "spring"]}


def inputs(module: ModuleType) -> list[Any]:
    """The tensors of two teas, [records, 1] each; text travels as BYTES."""
    tensors = []
    for name, values in NUMBERS.items():
        tensor = module.InferInput(name, [len(values), 1], "FP32")
        tensor.set_data_from_numpy(np.array(values, dtype=np.float32).reshape(-1, 1))
        tensors.append(tensor)
    for name, texts in TEXTS.items():
        tensor = module.InferInput(name, [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_).reshape(-1, 1))
        tensors.append(tensor)
    return tensors


def main() -> None:
    """Ask both ways."""
    address = os.environ["PENSTOCK_URL"].removeprefix("http://")
    for module in (tritonclient.http, tritonclient.grpc):
        headers = {"authorization": f"Bearer {os.environ['PENSTOCK_TOKEN']}"}  # the HTTP client adds to the dict
        client = module.InferenceServerClient(address)
        if not client.is_model_ready(ENDPOINT, headers=headers):
            raise SystemExit(f"the endpoint {ENDPOINT} does not answer")
        answer = client.infer(ENDPOINT, inputs(module), headers=headers)
        labels = [label.decode() for label in answer.as_numpy("label").ravel()]
        print(f"{module.__name__}: {', '.join(labels)}")
        client.close()


if __name__ == "__main__":
    main()
