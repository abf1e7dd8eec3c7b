"""Tritons for tests, and questions to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp

from penstock.backing.triton import TritonInstance
from penstock.backing.triton_environment import TritonEnvironment
from penstock.backing.triton_repository import write_repository


def new_instance(home: Path, environment: TritonEnvironment, model_dir: Path, name: str = "triton-1") -> TritonInstance:
    repository = write_repository(home / f"{name}-models", "m", model_dir)
    return TritonInstance(home, name, environment, repository, model_dir, "m")


async def infer(instance: TritonInstance, inputs: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{instance.http_port}/v2/models/m/infer"
    async with aiohttp.ClientSession() as session, session.post(url, json={"inputs": inputs}) as answer:
        return answer.status, json.loads(await answer.text())


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


async def lookup(instance: TritonInstance, x: int) -> tuple[int, dict[str, Any]]:
    return await infer(instance, [tensor("x", "INT64", [1, 1], [x])])
