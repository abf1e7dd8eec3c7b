"""Runs in FastAPI's own environment: KServe's REST inference as one would write it by hand, with onnxruntime."""
# Its packages are not in our environment.
# mypy: ignore-errors

import os

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Tensor(BaseModel):
    """As KServe v2 has it."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    """A call."""

    inputs: list[Tensor]


class Response(BaseModel):
    """Its answer."""

    model_name: str
    outputs: list[Tensor]


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v2/models/{name}/infer")
async def infer(name: str, request: Request) -> Response:
    feed = {t.name: np.array(t.data, dtype=np.float32).reshape(t.shape) for t in request.inputs}
    (y,) = session.run(["y"], feed)
    return Response(
        model_name=name,
        outputs=[Tensor(name="y", shape=list(y.shape), datatype="FP32", data=y.ravel().tolist())],
    )
