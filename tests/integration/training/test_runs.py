"""Runs from end to end, on real jobs."""

from __future__ import annotations

from penstock.api.training.v1 import training_service_pb2 as pb
from tests.support.training_platform import PARENT, TrainingPlatform, wait_for


async def test_a_built_in_run_makes_a_model_version(platform: TrainingPlatform, version: str) -> None:
    instance = await platform.start()
    stub = platform.stub()
    run = pb.Run(dataset_version=version, code=pb.Code(algorithm="logistic-regression"), model="shapes")
    made = await stub.CreateRun(pb.CreateRunRequest(parent=PARENT, run=run))
    assert made.state == pb.Run.QUEUED
    done = await wait_for(stub, made.name, pb.Run.SUCCEEDED)
    assert done.model_version == f"{PARENT}/models/shapes/versions/1"
    assert done.metrics["accuracy"] > 0.5 and done.manifest
    registered = await stub.GetModelVersion(pb.GetModelVersionRequest(name=done.model_version))
    assert (registered.run, registered.dataset_version, registered.task) == (done.name, version, "classification")
    assert await platform.events(instance, done.name) == [
        "training.run.queued",
        "training.run.started",
        "training.run.succeeded",
    ]
    assert await platform.events(instance, f"{PARENT}/models/shapes") == ["training.model.registered"]
