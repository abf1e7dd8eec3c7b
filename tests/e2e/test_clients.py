"""Clients that know nothing of Penstock: tritonclient, curl, grpcurl's protocol, nats-py with the AsyncAPI file."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path

import nats
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import yaml
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.e2e.conftest import Platform, Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def served(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """The platform with an endpoint `fruit` that tells apples from pears by two numbers."""
    path = tmp_path_factory.mktemp("data") / "fruit.csv"
    rows = [f"f{n},{n % 10 + (5 if n % 2 else 0)},{n % 7},{'apple' if n % 2 else 'pear'}" for n in range(120)]
    path.write_text("id,width,height,kind\n" + "\n".join(rows))
    platform.run("dataset", "import", "fruit", "--from", str(path), "--key", "id", "--label", "kind")
    platform.run("train", "fruit@1", "--algorithm", "logistic-regression", "--wait")
    platform.run("endpoint", "deploy", "fruit", "fruit@1", "--wait")
    return platform


def _inputs(module: object, kind: type) -> list[object]:
    made = []
    for name in ("width", "height"):
        tensor = kind(name, [2, 1], "FP32")
        tensor.set_data_from_numpy(np.array([[1.0], [12.0]], dtype=np.float32))
        made.append(tensor)
    return made


def test_a_plain_triton_http_client_gets_predictions(served: Platform) -> None:
    client = triton_http.InferenceServerClient(served.url.removeprefix("http://"))
    headers = {"authorization": f"Bearer {served.token}"}
    assert client.is_server_live(headers=headers)
    assert client.is_model_ready("fruit", headers=headers)
    answer = client.infer("fruit", _inputs(triton_http, triton_http.InferInput), headers=headers)
    assert {value.decode() for value in answer.as_numpy("label").ravel()} <= {"apple", "pear"}
    client.close()


def test_a_plain_triton_grpc_client_gets_predictions(served: Platform) -> None:
    client = triton_grpc.InferenceServerClient(served.url.removeprefix("http://"))
    headers = {"authorization": f"Bearer {served.token}"}
    assert client.is_server_live(headers=headers)
    answer = client.infer("fruit", _inputs(triton_grpc, triton_grpc.InferInput), headers=headers)
    assert answer.as_numpy("probabilities").shape == (2, 2)
    client.close()


def _curl(platform: Platform, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", "-H", f"authorization: Bearer {platform.token}", *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_curl_gets_a_prediction_with_a_name(served: Platform) -> None:
    tensors = [{"name": n, "shape": [1, 1], "datatype": "FP32", "data": [3.0]} for n in ("width", "height")]
    url = f"{served.url}/v2/models/fruit/infer"
    done = subprocess.run(
        ["curl", "-s", "-i", "-H", f"authorization: Bearer {served.token}", "-d", json.dumps({"inputs": tensors}), url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "200 OK" in done
    assert "x-penstock-prediction: projects/default/endpoints/fruit/revisions/1/predictions/" in done


def _body(**changed: object) -> dict[str, object]:
    tensors = [{"name": n, "shape": [1, 1], "datatype": "FP32", "data": [3.0]} for n in ("width", "height")]
    return {"inputs": [{**tensors[0], **changed}, tensors[1]]}


def test_a_prediction_is_of_the_project_that_was_named(served: Platform, penstock: Run, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps(_body()))
    assert "projects/default/endpoints/fruit/" in penstock("predict", "fruit", "--from", body).out
    penstock("admin", "project", "create", "greengrocer")
    penstock("predict", "fruit", "--from", body, "--project", "greengrocer", code=2)
    create = ("admin", "token", "create", "--role", "viewer", "--subject", "ana", "--project")
    of_default, of_other = (penstock(*create, project).out.strip() for project in ("default", "greengrocer"))
    penstock("predict", "fruit", "--from", body, "--token", of_default)
    penstock("predict", "fruit", "--from", body, "--token", of_other, code=4)


def test_what_the_model_server_refuses_is_told_without_its_own_ids(
    served: Platform, penstock: Run, tmp_path: Path
) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps(_body(shape=[1, 2], data=[1, 2])))
    printed = penstock("predict", "fruit", "--from", body, code=2)
    assert "(endpoint fruit, HTTP 400)" in printed.err and "request id" not in printed.err


def test_curl_creates_and_reads_a_dataset_over_rest(platform: Platform) -> None:
    base = f"{platform.url}/v1/projects/default/datasets"
    body = json.dumps({"keyField": "id", "description": "made by curl"})
    status, text = _curl(platform, "-d", body, "-H", "content-type: application/json", f"{base}?dataset_id=by-curl")
    assert status == 200, text
    status, text = _curl(platform, f"{base}/by-curl")
    assert status == 200
    assert json.loads(text)["description"] == "made by curl"
    status, text = _curl(platform, f"{base}/nothing")
    assert status == 404
    assert "does not exist" in text


def test_reflection_through_the_edge_lists_all_services(platform: Platform) -> None:
    import grpc

    token = ("authorization", f"Bearer {platform.token}")

    class Authorize(grpc.StreamStreamClientInterceptor):
        def intercept_stream_stream(self, continuation, details, requests):  # type: ignore[no-untyped-def]
            return continuation(details._replace(metadata=[token]), requests)

    with grpc.insecure_channel(platform.url.removeprefix("http://")) as channel:
        services = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, Authorize())).get_services()
    wanted = ("project", "dataset", "training", "tuning", "evaluation", "serving", "pipeline", "lineage")
    for name in wanted:
        assert f"penstock.api.{name}.v1.{name.capitalize()}Service" in services


async def test_a_publisher_that_knows_the_asyncapi_file_and_its_user_triggers_a_pipeline(
    served: Platform, tmp_path: Path
) -> None:
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(
        "kind: Pipeline\nname: on-measurement\non: {event: com.example.measured, filter: event.data.count > 2}\n"
        "steps: [{id: train, train: {dataset: fruit@1, algorithm: logistic-regression}}]\n"
    )
    await asyncio.to_thread(served.run, "pipeline", "apply", "-f", str(pipeline))
    create = ("admin", "publisher", "create", "lab", "--output", "json", "--to")
    nowhere = str(tmp_path / "missing" / "lab.creds")
    await asyncio.to_thread(served.run, *create, nowhere, code=2)  # nothing was made that would now be lost
    credentials = tmp_path / "lab.creds"
    credentials.write_text("older, and open to all")
    credentials.chmod(0o644)
    made = await asyncio.to_thread(served.run, *create, str(credentials))
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert credentials.read_text().startswith("-----BEGIN NATS USER JWT")
    document = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
    address = next(c["address"] for c in document["channels"].values() if ".external." in c["address"])
    subject = address.replace("{project}", "default").replace("{source}", "lab").replace("{event}", "measured")
    assert "{" not in subject
    bus = await nats.connect(
        json.loads(made)["url"], user_credentials=str(credentials), inbox_prefix=b"_INBOX_default_lab"
    )
    headers = {
        "ce-specversion": "1.0", "ce-id": "m-1", "ce-source": "//lab", "ce-type": "com.example.measured",
        "content-type": "application/json",
    }  # fmt: skip
    await bus.publish(subject, b'{"count": 3}', headers=headers)
    await bus.flush()
    await bus.close()
    deadline = time.monotonic() + 30
    runs: list[dict[str, object]] = []
    while not runs and time.monotonic() < deadline:
        found = await asyncio.to_thread(served.run, "pipeline", "runs", "on-measurement", "--output", "json")
        runs = json.loads(found)["items"]
        await asyncio.sleep(0.2)
    assert [cause["eventId"] for run in runs for cause in run["causes"]] == ["m-1"]  # type: ignore[attr-defined]


def test_curl_changes_what_the_mask_names_and_over_what_it_read_only(platform: Platform) -> None:
    url = f"{platform.url}/v1/projects/default/pipelines/masked"

    def change(query: str, **body: object) -> tuple[int, str]:
        return _curl(platform, "-X", "PATCH", f"{url}?{query}", "-d", json.dumps(body))

    steps = [{"id": "train", "action": "train", "with": {"dataset": "none", "algorithm": "mlp"}}]
    whole = {"description": "as it was", "trigger": {"event": "com.example.never"}, "steps": steps}
    status, _ = change("update_mask=paused", paused=True, **whole)
    assert status == 404
    status, body = change("allow_missing=true", **whole)
    assert status == 200, body
    read = json.loads(body)
    status, body = change("updateMask=paused,trigger.filter", paused=True, description="not masked")
    assert status == 200, body
    changed = json.loads(body)
    assert (changed["paused"], changed["description"], changed["steps"]) == (True, "as it was", read["steps"])
    for etag, expected in ((read["etag"], 409), (changed["etag"], 200)):
        status, body = _curl(platform, "-X", "DELETE", f"{url}?etag={etag}")
        assert status == expected, body
