"""Whether served answers are the models': computed again by onnxruntime alone, from downloaded models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.cli.demo.traffic import Request

TOLERANCE = 1e-4


class Model:
    """A downloaded model: `model.onnx` and `model.json`."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self.card: Mapping[str, Any] = json.loads((folder / "model.json").read_text())

    def outputs(self, pixels: Iterable[float]) -> dict[str, list[Any]]:
        """All outputs for one digit, flat."""
        import numpy as np

        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, {"pixels": np.asarray([list(pixels)], dtype=np.float32)})
        return {name: np.asarray(value).ravel().tolist() for name, value in zip(names, values, strict=True)}


def differs(request: Request, model: Model) -> bool:
    """Whether the answer is not what the model says, within 1e-4 for numbers."""
    expected = model.outputs(request.input)
    served = {tensor["name"]: tensor["data"] for tensor in request.outputs}
    if set(served) != set(expected):
        return True
    for name, values in expected.items():
        for mine, theirs in zip(values, served[name], strict=True):
            if isinstance(mine, float):
                if abs(mine - theirs) > TOLERANCE:
                    return True
            elif mine != theirs:
                return True
    return False


def wrong_answers(requests: Iterable[Request], models: Mapping[int, Model]) -> int:
    """How many answers are not those of the model of the revision that gave them."""
    return sum(1 for r in requests if r.prediction and (r.revision not in models or differs(r, models[r.revision])))
