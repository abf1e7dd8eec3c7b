"""The service as the platform runs it: trials are told by events, in the chain of their study."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.api.tuning.v1 import tuning_service_pb2 as pb
from penstock.api.tuning.v1.tuning_service_pb2_grpc import TuningServiceStub
from penstock.backing.stack import Stack
from penstock.errors import NotFound
from penstock.events import Consumer, Event
from services.training.service import build as build_training
from services.tuning import reconciler
from services.tuning.service import build
from tests.support.sample_model import model_files
from tests.support.service_host import client, import_rows, running_host
from tests.support.training_platform import make_repository
from tests.support.tuning_platform import SCORES_X


async def test_events_alone_drive_a_study(stack: Stack, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "ASK_SECONDS", 300.0)
    code = make_repository(home / "code", {"train.sh": SCORES_X.encode(), **model_files()})
    seen: list[Event] = []

    async def note(event: Event) -> None:
        seen.append(event)

    async with running_host(stack, home, {"training": build_training, "tuning": build}) as host:
        context = host.contexts["tuning"]
        kinds = ["tuning.study", "training.run", "training.model"]
        consuming = asyncio.create_task(Consumer(context.bus, context.database(), "tuning-test", kinds, note).run())
        rows = [{"id": f"k{n}", "x": float(n), "kind": "big" if n > 20 else "small"} for n in range(40)]
        study = pb.Study(
            dataset_version=await import_rows(host, "shapes", rows, label="kind"),
            code=training_pb.Code(git=training_pb.GitSource(url=str(code))),
            command=["sh", "train.sh"],
            space=[pb.ParameterSpace(name="x", float=pb.FloatRange(low=0, high=1))],
            objective=pb.Objective(metric="score", direction=pb.Objective.MINIMIZE),
            max_trials=3,
            parallelism=2,
        )
        stub = client(host, TuningServiceStub, "tuning")
        made = await stub.CreateStudy(pb.CreateStudyRequest(parent="projects/default", study_id="driven", study=study))
        async with asyncio.timeout(60):
            async for found in stub.WatchStudy(pb.WatchStudyRequest(name=made.name)):
                last = found
            while "tuning.study.completed" not in [event.type for event in seen]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        trials = (await stub.ListTrials(pb.ListTrialsRequest(parent=made.name))).trials
        assert [await stub.GetTrial(pb.GetTrialRequest(name=trial.name)) for trial in trials] == list(trials)
        with pytest.raises(NotFound):
            await stub.GetTrial(pb.GetTrialRequest(name=f"{made.name}/trials/4"))
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)
    assert last.state == pb.Study.SUCCEEDED and last.trials_completed == 3
    # From the study over its trials' runs to the model: one chain.
    assert {event.type for event in seen} >= {"training.run.succeeded", "training.model.registered"}
    assert len({event.correlation_id for event in seen}) == 1
