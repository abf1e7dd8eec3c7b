"""Two projects with the same names for everything never meet: predictions, pages, archives, pipelines, lineage."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.struct_pb2 import Struct
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from penstock.api.dataset.v1 import dataset_service_pb2 as dataset_pb
from penstock.api.event.v1 import event_service_pb2 as event_pb
from penstock.api.event.v1.event_service_pb2_grpc import EventServiceStub
from penstock.api.event.v1.events_pb2 import Event
from penstock.api.lineage.v1 import lineage_service_pb2 as lineage_pb
from penstock.api.pipeline.v1 import pipeline_service_pb2 as pipeline_pb
from penstock.api.training.v1 import training_service_pb2 as training_pb
from penstock.errors import InvalidArgument, NotFound
from penstock.sdk.code import pack
from tests.support.attacker import Victim
from tests.support.rivals import SAME, Rival, question

Rivals = tuple[Rival, Rival]
INFER = f"/v2/models/{SAME}/infer"


@pytest.fixture(scope="module")
def connection(victim: Victim) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection(victim.edge, timeout=30)
    yield made
    made.close()


def post(
    connection: http.client.HTTPConnection, path: str, token: str, **headers: str
) -> tuple[int, dict[str, Any], str]:
    """Status, JSON and prediction name."""
    sent = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, json.dumps(question()), sent)
    answer = connection.getresponse()
    body = answer.read()
    return answer.status, json.loads(body or b"{}"), answer.getheader("x-penstock-prediction") or ""


def labels_of(body: dict[str, Any]) -> set[str]:
    return {text for tensor in body["outputs"] if tensor["name"] == "label" for text in tensor["data"]}


def test_each_token_gets_its_own_project_s_model_by_rest(
    rivals: Rivals, connection: http.client.HTTPConnection
) -> None:
    for one, other in (rivals, rivals[::-1]):
        claims = {
            "x_penstock_project": other.project,
            "x_penstock_cluster": f"endpoint/{other.project}/{SAME}/http",
            "x_penstock_endpoint": SAME,
            "x_penstock_on_behalf_of": f"{other.project}/boss",
            "x_penstock_revision": "1",
            "penstock_pin": "1",
            "x_envoy_original_path": f"/v1/projects/{other.project}{INFER}",
            "x_http_method_override": "GET",
        }
        for headers in ({}, claims, {key.upper(): value for key, value in claims.items()}):
            status, body, prediction = post(connection, INFER, one.client.token, **headers)
            assert status == 200, body
            assert labels_of(body) <= one.labels
            assert prediction.startswith(f"{one.name}/endpoints/{SAME}/revisions/1/predictions/")
        status, body, prediction = post(connection, f"/v1/projects/{other.project}{INFER}", one.client.token)
        assert (status, prediction) == (403, ""), body
        assert not other.labels & set(json.dumps(body).split('"'))


def test_each_token_gets_its_own_project_s_model_by_grpc(rivals: Rivals, victim: Victim) -> None:
    with triton.InferenceServerClient(victim.edge) as client:
        tensor = triton.InferInput("width", [2, 1], "FP32")
        tensor.set_data_from_numpy(np.array([[1.0], [12.0]], dtype=np.float32))
        for one, other in (rivals, rivals[::-1]):
            headers = {"authorization": f"Bearer {one.client.token}", "x-penstock-project": other.project}
            answer = client.infer(SAME, [tensor], headers=headers)
            assert {label.decode() for label in answer.as_numpy("label").ravel()} <= one.labels
        for model in (f"{other.project}/{SAME}", f"../{other.project}/{SAME}", f"{SAME}/1", "", "a" * 5000):
            with pytest.raises(InferenceServerException):
                client.infer(model, [tensor], headers=headers)


def test_only_the_platform_s_own_token_can_pin_a_revision(
    rivals: Rivals, victim: Victim, connection: http.client.HTTPConnection
) -> None:
    red = rivals[0]
    assert post(connection, INFER, red.client.token, x_penstock_revision="77")[0] == 200  # ignored: no such revision
    assert post(connection, INFER, red.admin.token, x_penstock_revision="77")[0] == 200
    service = victim.token(red.project, "service")
    assert post(connection, INFER, service, x_penstock_revision="77")[0] == 404
    assert post(connection, INFER, service)[0] == 200


def test_a_job_s_token_predicts_nothing(rivals: Rivals, victim: Victim, connection: http.client.HTTPConnection) -> None:
    token = victim.token(rivals[0].project, "runner", subject=f"{rivals[0].name}/runs/r1")
    assert post(connection, INFER, token)[0] == 403


def test_triton_s_controls_cannot_be_reached(
    rivals: Rivals, victim: Victim, connection: http.client.HTTPConnection
) -> None:
    paths = [
        "/v2/repository/index", f"/v2/repository/models/{SAME}/load", f"/v2/repository/models/{SAME}/unload",
        "/v2/logging", "/v2/trace/setting", f"/v2/models/{SAME}/trace/setting", "/v2/systemsharedmemory/status",
        "/v2/systemsharedmemory/region/x/register", "/v2/cudasharedmemory/status", "/v2/models/stats",
        f"/v2/models/{SAME}/stats", f"/v2/models/{SAME}/generate", f"/v2/models/{SAME}/versions/1/infer", "/metrics",
    ]  # fmt: skip
    for path in paths:
        assert post(connection, path, victim.admin)[0] == 404, path
    known = {"ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelInfer"}
    rpcs = {method.name for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods} - known
    assert {"RepositoryIndex", "RepositoryModelLoad", "SystemSharedMemoryRegister", "LogSettings"} <= rpcs
    with grpc.insecure_channel(victim.edge) as channel:
        for rpc in sorted(rpcs):
            call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{rpc}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", metadata=[("authorization", f"Bearer {victim.admin}")], timeout=10)
            assert caught.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND), rpc


def test_a_page_token_of_one_project_is_worth_nothing_in_another(rivals: Rivals) -> None:
    red, green = rivals
    for one in rivals:
        one.client.dataset(SAME).patch("k1", {"width": 3}, draft="mine")
    first = dataset_pb.ListRecordsRequest(parent=f"{green.name}/datasets/{SAME}", page_size=5)
    token = green.client.datasets.ListRecords(first).next_page_token
    draft = dataset_pb.ListRecordsRequest(parent=first.parent, page_size=5, draft="mine")
    drafted = green.client.datasets.ListRecords(draft).next_page_token
    assert token and drafted
    assert len(green.client.datasets.ListRecords(dataset_pb.ListRecordsRequest(
        parent=first.parent, page_size=5, page_token=token)).records) == 5  # fmt: skip
    for text, name in ((token, ""), (drafted, "mine"), (token, "mine"), (drafted, "")):
        parent = f"{red.name}/datasets/{SAME}"
        asked = dataset_pb.ListRecordsRequest(parent=parent, page_size=5, page_token=text, draft=name)
        with pytest.raises(InvalidArgument):
            red.client.datasets.ListRecords(asked)


def test_an_archive_of_code_is_for_the_project_that_sent_it(rivals: Rivals, tmp_path: Any) -> None:
    red, green = rivals
    (tmp_path / "train.py").write_text(f"print('the secret of green, {time.time()}')")
    archive = training_pb.CreateCodeArchiveRequest(parent=green.name, data=pack(tmp_path))
    code = training_pb.Code(archive=green.client.training.CreateCodeArchive(archive).digest)
    for rival, allowed in ((red, False), (green, True)):
        version = f"{rival.name}/datasets/{SAME}/versions/1"
        run = training_pb.Run(dataset_version=version, code=code, command=["python", "train.py"])
        asked = training_pb.CreateRunRequest(parent=rival.name, run=run, validate_only=True)
        if allowed:
            rival.client.training.CreateRun(asked)
        else:
            with pytest.raises(NotFound, match="send it first"):
                rival.client.training.CreateRun(asked)


def test_a_pipeline_cannot_act_on_another_project_for_its_author(rivals: Rivals) -> None:
    red, green = rivals
    theirs = f"{green.name}/datasets/{SAME}/versions/1"
    steps = {
        "train": {"dataset": theirs, "algorithm": "logistic-regression"},
        "late": {"dataset": "${event.data.what}", "algorithm": "logistic-regression"},
        "evaluate": {"model": f"{green.name}/models/{SAME}/versions/1", "dataset": theirs},
        "deploy": {"endpoint": f"{green.name}/endpoints/{SAME}", "model": f"{green.name}/models/{SAME}/versions/1"},
    }
    for id, settings in steps.items():
        with_ = Struct()
        with_.update(settings)
        step = pipeline_pb.Step(id="step", action="train" if id == "late" else id, **{"with": with_})  # type: ignore[arg-type]
        pipeline = pipeline_pb.Pipeline(name=f"{red.name}/pipelines/reach-{id}", steps=[step])
        pipeline.trigger.event = "com.example.reach"
        red.client.pipelines.UpdatePipeline(pipeline_pb.UpdatePipelineRequest(pipeline=pipeline, allow_missing=True))
    event = Event(type="com.example.reach", data=Struct(), id=f"reach-{time.time()}")
    event.data.update({"what": theirs})
    red.client.events.PublishEvent(event_pb.PublishEventRequest(parent=red.name, event=event))
    for id in steps:
        run = _ended_run(red, f"{red.name}/pipelines/reach-{id}")
        assert run.state == pipeline_pb.PipelineRun.FAILED, (id, run)
        assert "project" in run.reason and not run.steps[0].resource, (id, run.reason)


def _ended_run(rival: Rival, pipeline: str) -> pipeline_pb.PipelineRun:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        asked = pipeline_pb.ListPipelineRunsRequest(parent=pipeline)
        for run in rival.client.pipelines.ListPipelineRuns(asked).pipeline_runs:
            if run.state in (pipeline_pb.PipelineRun.FAILED, pipeline_pb.PipelineRun.SUCCEEDED):
                return run
        time.sleep(0.1)
    raise AssertionError(f"no run of {pipeline} ended")


def until_known(rival: Rival, name: str) -> None:
    """Wait until lineage has heard of it."""
    deadline = time.monotonic() + 30
    while True:
        try:
            rival.client.lineage.Trace(lineage_pb.TraceRequest(name=name))
        except NotFound:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def test_lineage_stays_within_the_project_and_tells_nothing_of_another_s_progress(rivals: Rivals) -> None:
    red, green = rivals
    start = f"{red.name}/endpoints/{SAME}/revisions/1"
    theirs = {f"{green.name}/datasets/{SAME}": 10**6, f"{green.name}/endpoints/{SAME}": 10**6}
    until_known(red, start)
    began = time.monotonic()
    traced = red.client.lineage.Trace(lineage_pb.TraceRequest(name=start, at_least=theirs))
    assert not traced.stale and time.monotonic() - began < 1.9  # it waited for nothing of theirs
    assert traced.nodes and all(node.name.startswith(f"{red.name}/") for node in traced.nodes)
    own = red.client.lineage.Trace(lineage_pb.TraceRequest(name=start, at_least={f"{red.name}/datasets/{SAME}": 10**6}))
    assert own.stale  # the control: its own it would have waited for
    impact = lineage_pb.ImpactRequest(name=f"{red.name}/datasets/{SAME}/records/k1")
    assert all(node.name.startswith(f"{red.name}/") for node in red.client.lineage.Impact(impact).nodes)


def test_a_follower_of_events_hears_its_own_project_only(rivals: Rivals, victim: Victim) -> None:
    red, green = rivals
    heard = []
    with grpc.insecure_channel(victim.edge) as channel:
        token = (("authorization", f"Bearer {red.client.token}"),)
        request = event_pb.WatchEventsRequest(parent=red.name)
        watching = EventServiceStub(channel).WatchEvents(request, metadata=token, timeout=20)
        watching.initial_metadata()  # it follows from here on
        for rival in (green, red):
            event = Event(type="com.example.secret", data=Struct(), id=f"{rival.project}-{time.time()}")
            event.data.update({"of": rival.project})
            rival.client.events.PublishEvent(event_pb.PublishEventRequest(parent=rival.name, event=event))
        for event in watching:
            heard.append(event)
            if event.type == "com.example.secret":
                break
        watching.cancel()
    assert dict(heard[-1].data) == {"of": red.project}
    assert all(green.project not in event.subject for event in heard)
