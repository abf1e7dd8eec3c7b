"""What the built-in trainers write, answered by a real Triton as in the run, gaps and unseen text included."""

from __future__ import annotations

import json
import math
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from penstock.algorithms.inference import OnnxModel, to_array, to_tensor
from penstock.algorithms.model_format import ModelCard
from penstock.algorithms.tensors import records_to_tensors
from penstock.backing.triton import TritonInstance
from penstock.backing.triton_environment import TritonEnvironment
from penstock.backing.triton_repository import write_repository
from tests.unit.algorithms.conftest import Job, flowers

QUICK: dict[str, dict[str, Any]] = {
    "logistic-regression": {},
    "gradient-boosting": {"max_iter": 20, "max_leaf_nodes": 8},
    "mlp": {"epochs": 40},
}


def infer(port: int, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of a KServe v2 answer. Python's json writes NaN as Triton's parser reads it."""
    body = json.dumps(request).encode()
    url = f"http://127.0.0.1:{port}/v2/models/flowers/infer"
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10) as answer:
        outputs: list[dict[str, Any]] = json.load(answer)["outputs"]
    return outputs


@pytest.mark.parametrize("name", QUICK)
async def test_triton_answers_as_the_run_did(
    tmp_path: Path, home: Path, triton_environment: TritonEnvironment, name: str
) -> None:
    job = Job(tmp_path).give("train", flowers(), label="species")
    assert job.run(name, **QUICK[name]) == 0
    card = ModelCard.load(job.model)
    repository = write_repository(tmp_path / "repository", "flowers", job.model)
    triton = TritonInstance(home, f"triton-{name}", triton_environment, repository, job.model, "flowers")
    await triton.start()
    try:
        assert card.differences(infer(triton.http_port, card.example_request())) == []
        records: list[dict[str, Any]] = [{}, {"petal": 2.1, "soil": "volcanic"}, {"soil": "", "wild": True, "stem": 11}]
        request = card.request(records)
        assert any(math.isnan(x) for tensor in request["inputs"] for x in tensor["data"] if isinstance(x, float))
        model = OnnxModel(job.model / "model.onnx")
        inputs = {tensor.name: to_array(tensor) for tensor in records_to_tensors(card.inputs, records)}
        answers = model.predict(inputs)
        outputs = {output["name"]: output for output in infer(triton.http_port, request)}
        for spec in model.outputs:
            expected = to_tensor(spec, answers[spec.name]).to_json()
            assert outputs[spec.name]["shape"] == expected["shape"]
            assert outputs[spec.name]["data"] == pytest.approx(expected["data"], abs=1e-5)
    finally:
        await triton.stop(grace=3)
