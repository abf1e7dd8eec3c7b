"""Traffic moves between revisions while requests run: none fails, and Envoy says what it does."""

from __future__ import annotations

import asyncio
import collections
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from penstock.edge import PREDICTION_HEADER, Attempts, clusters, files, routes
from penstock.edge.files import replace_json
from penstock.errors import Unavailable
from tests.integration.edge.conftest import ModelServer, Platform

pytestmark = pytest.mark.asyncio(loop_scope="module")
INFER = "/v2/models/clf/infer"


class Load:
    """Clients without retries that ask by REST and gRPC without pause, and what they got."""

    def __init__(self, platform: Platform, clients: int = 4) -> None:
        self.platform, self.clients = platform, clients
        self.answers: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.running = True

    async def __aenter__(self) -> Load:
        self.session = aiohttp.ClientSession()
        self.channel = grpc.aio.insecure_channel(self.platform.address, options=[("grpc.enable_retries", 0)])
        each = [self.rest, self.rpc]
        self.tasks = [asyncio.create_task(each[number % 2]()) for number in range(self.clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running = False
        await asyncio.gather(*self.tasks)
        await self.session.close()
        await self.channel.close()

    async def rest(self) -> None:
        headers = self.platform.headers()
        while self.running:
            async with self.session.post(self.platform.url + INFER, json={}, headers=headers) as response:
                if response.status == 200:
                    self.answers[response.headers[PREDICTION_HEADER].split("/")[5]] += 1
                else:
                    self.failures.append(f"{response.status} {await response.text()}")

    async def rpc(self) -> None:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        request = service_pb2.ModelInferRequest(model_name="clf")
        while self.running:
            try:
                answer = await stub.ModelInfer(request, metadata=self.platform.metadata())
                self.answers[answer.id[1:]] += 1
            except grpc.aio.AioRpcError as error:
                self.failures.append(f"{error.code()} {error.details()}")

    async def more(self, number: int) -> None:
        """Wait until that many more were answered."""
        wanted = self.answers.total() + number
        while self.answers.total() + len(self.failures) < wanted:  # noqa: ASYNC110 - the clients' counters are plain
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def servers(model_server: Callable[..., ModelServer]) -> tuple[ModelServer, ModelServer]:
    """Two model servers for the whole file."""
    return model_server(1), model_server(2)


@pytest_asyncio.fixture(loop_scope="module")
async def pair(
    platform: Platform, servers: tuple[ModelServer, ModelServer]
) -> AsyncIterator[tuple[ModelServer, ModelServer]]:
    """Two revisions of endpoint clf, running, at weights 50 and 50."""
    first, second = servers
    for server in servers:
        if server.process is None:
            server.start()
    generation = platform.edge.set_endpoint("alpha", "clf", [first.member(50), second.member(50)])
    await platform.edge.applied("alpha", "clf", generation)
    yield first, second
    platform.edge.remove_endpoint("alpha", "clf")
    await platform.edge.removed("alpha", "clf")


async def shift(platform: Platform, *members: Any) -> int:
    generation = platform.edge.set_endpoint("alpha", "clf", members)
    await platform.edge.applied("alpha", "clf", generation)
    return generation


async def test_no_request_fails_while_weights_change(platform: Platform, pair: tuple[ModelServer, ModelServer]) -> None:
    first, second = pair
    async with Load(platform) as load:
        for step in range(12):
            await shift(platform, first.member(1 + 99 * (step % 2)), second.member(100 - 99 * (step % 2)))
            await load.more(30)
        await shift(platform, second.member(100))
        load.answers.clear()
        await load.more(100)
        only_second = set(load.answers)
    assert load.failures == []
    assert only_second == {"2"}


async def test_no_request_fails_when_a_member_is_killed(
    platform: Platform, pair: tuple[ModelServer, ModelServer]
) -> None:
    first, second = pair
    async with Load(platform) as load:
        await load.more(200)
        first.kill()
        await load.more(300)
        await shift(platform, second.member())
        await load.more(100)
    assert load.failures == []
    assert set(load.answers) == {"1", "2"}


async def test_without_retries_on_another_member_a_kill_fails_requests(
    platform: Platform, pair: tuple[ModelServer, ModelServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above."""
    document = routes.resource(["demo"], "demo")
    for route in document["resources"][0]["virtual_hosts"][0]["routes"]:
        route.get("route", {}).pop("retry_policy", None)
    replace_json(platform.edge.folder.routes, document)
    await asyncio.sleep(0.1)
    try:
        async with Load(platform) as load:
            await load.more(200)
            pair[0].kill()
            await load.more(200)
    finally:
        replace_json(platform.edge.folder.routes, routes.resource(["demo"], "demo"))
        await asyncio.sleep(0.1)
    assert load.failures


async def test_weights_are_shares(platform: Platform, pair: tuple[ModelServer, ModelServer]) -> None:
    await shift(platform, pair[0].member(90), pair[1].member(10))
    async with Load(platform) as load:
        await load.more(600)
    assert 0.05 < load.answers["2"] / load.answers.total() < 0.15


async def test_a_change_of_weights_alone_is_in_force_once_it_shows(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    for _ in range(3):
        for weights, label in (((1, 0), "r1"), ((0, 1), "r2")):
            await shift(platform, *(server.member(weight) for server, weight in zip(pair, weights, strict=True)))
            assert {await slow(platform, http, 0) for _ in range(10)} == {label}


async def test_config_dump_shows_the_generation_of_both_protocols(
    platform: Platform, pair: tuple[ModelServer, ModelServer]
) -> None:
    edge = platform.edge
    before = await edge.generation("alpha", "clf")
    assert await shift(platform, pair[0].member(7)) == before + 1
    assert await edge.generation("alpha", "clf") == edge.written_generation("alpha", "clf") == before + 1
    assert edge.set_endpoint("alpha", "clf", [pair[0].member(7)], generation=1000) == 1000
    await edge.applied("alpha", "clf", 1000)
    with pytest.raises(Unavailable, match="did not apply generation 1001"):
        await edge.applied("alpha", "clf", 1001, timeout=0.1)
    assert await edge.generation("alpha", "never") == 0


async def slow(platform: Platform, http: aiohttp.ClientSession, seconds: float, path: str = INFER) -> str:
    url = f"{platform.url}{path}?sleep={seconds}"
    async with http.post(url, json={}, headers=platform.headers()) as response:
        return str((await response.json())["id"])


async def test_a_draining_member_gets_nothing_new_and_finishes_what_it_has(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    first, second = pair
    edge = platform.edge
    await shift(platform, first.member())
    running = [asyncio.create_task(slow(platform, http, 1.0)) for _ in range(3)]
    while await edge.rq_active("alpha", "clf", 1) < 3:  # noqa: ASYNC110 - asks Envoy
        await asyncio.sleep(0.02)
    await shift(platform, second.member(), first.member(0))
    assert {await slow(platform, http, 0) for _ in range(20)} == {"r2"}
    assert await edge.rq_active("alpha", "clf", 1) == 3
    assert await edge.rq_active("alpha", "clf", 2) == 0
    assert await asyncio.gather(*running) == ["r1"] * 3
    assert await edge.rq_active("alpha", "clf", 1) == 0


async def statuses(platform: Platform, http: aiohttp.ClientSession, number: int) -> collections.Counter[str]:
    """How that many requests end, by REST and gRPC in turn: the label of who answered, or the error."""
    found: collections.Counter[str] = collections.Counter()
    async with grpc.aio.insecure_channel(platform.address, options=[("grpc.enable_retries", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(number // 2):
            async with http.post(platform.url + INFER, json={}, headers=platform.headers()) as response:
                found[(await response.json())["id"] if response.status == 200 else str(response.status)] += 1
            try:
                answer = await stub.ModelInfer(
                    service_pb2.ModelInferRequest(model_name="clf"), metadata=platform.metadata()
                )
                found[answer.id] += 1
            except grpc.aio.AioRpcError as error:
                found[error.code().name] += 1
    return found


async def test_members_without_a_share_get_nothing_even_when_nobody_has_one(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    await shift(platform, pair[0].member(0), pair[1].member(0))
    assert await statuses(platform, http, 20) == {"503": 10, "UNAVAILABLE": 10}
    await shift(platform, pair[0].member(1), pair[1].member(0))
    assert await statuses(platform, http, 20) == {"r1": 20}


async def test_a_member_without_a_share_gets_nothing_when_the_one_that_serves_is_killed(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    first, second = pair
    await shift(platform, first.member(100), second.member(0))
    first.kill()
    assert await statuses(platform, http, 40) == {"503": 20, "UNAVAILABLE": 20}
    first.start()  # on its ports; nobody tells Envoy
    async with asyncio.timeout(10):
        while "r1" not in await statuses(platform, http, 2):
            pass
    assert "r2" not in await statuses(platform, http, 20)


async def test_the_last_member_with_a_share_is_asked_however_badly_it_answers(
    platform: Platform,
    http: aiohttp.ClientSession,
    model_server: Callable[..., ModelServer],
    pair: tuple[ModelServer, ModelServer],
) -> None:
    broken = model_server(4, fail=True)
    for beside in ([], [pair[0].member(0)]):
        await shift(platform, broken.member(100), *beside)
        assert await statuses(platform, http, 40) == {"500": 20, "INTERNAL": 20}


async def test_members_and_keys_survive_a_restart_of_envoy(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    generation = await shift(platform, pair[1].member())
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), {"t-lost"})
    await platform.edge.keys_applied()
    platform.stop(signal.SIGKILL)
    await platform.start()
    assert await platform.edge.admin.uptime() < 10
    assert await platform.edge.generation("alpha", "clf") == generation
    assert await slow(platform, http, 0) == "r2"
    headers = platform.headers(token_id="t-lost")
    async with http.post(platform.url + INFER, json={}, headers=headers) as response:
        assert response.status == 401


async def test_the_base_can_be_written_again_and_keeps_endpoints_and_denylist(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    platform.edge.set_keys_and_denylist(platform.signer.jwks(), {"t-lost"})
    platform.write_base()
    await asyncio.sleep(0.2)
    assert await slow(platform, http, 0) in ("r1", "r2")
    assert platform.edge.keys().denied == {"t-lost"}
    assert await platform.edge.admin.refused() == {}


async def test_a_broken_file_of_members_keeps_the_ones_before(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    await shift(platform, pair[0].member())
    file = platform.edge.folder.members / clusters.file_name("endpoint/alpha/clf/http")
    replace_json(file, {"version_info": "99", "resources": [{"@type": "type.googleapis.com/nothing"}]})
    await asyncio.sleep(0.1)
    assert await slow(platform, http, 0) == "r1"
    assert await platform.edge.generation("alpha", "clf") != 99
    await shift(platform, pair[1].member())
    assert await slow(platform, http, 0) == "r2"


async def test_a_kill_at_any_write_is_healed_by_saying_it_again(
    platform: Platform,
    http: aiohttp.ClientSession,
    pair: tuple[ModelServer, ModelServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new endpoint is three files; after a failure at each of them, the same call brings it about."""
    real, edge = files.replace, platform.edge
    reached = []
    for k in (1, 2, 3):
        seen: list[object] = []

        def failing(path: Any, content: bytes, k: int = k, seen: list[object] = seen) -> None:
            seen.append(path)
            if len(seen) == k:
                raise OSError("killed here")
            real(path, content)

        name = f"fresh{k}"
        with monkeypatch.context() as patch:
            patch.setattr(files, "replace", failing)
            with pytest.raises(OSError, match="killed here"):
                edge.set_endpoint("alpha", name, [pair[0].member()], 5)
        reached.append(len(seen))
        assert await slow(platform, http, 0) in ("r1", "r2")
        edge.set_endpoint("alpha", name, [pair[0].member()], 5)
        await edge.applied("alpha", name, 5)
        assert await slow(platform, http, 0, f"/v2/models/{name}/infer") == "r1"
        edge.remove_endpoint("alpha", name)
    assert reached == [1, 2, 3]


async def test_a_member_that_answers_nothing_is_counted_though_no_client_notices(
    platform: Platform,
    http: aiohttp.ClientSession,
    model_server: Callable[..., ModelServer],
    pair: tuple[ModelServer, ModelServer],
) -> None:
    edge, mute = platform.edge, model_server(5, mute=True)
    await shift(platform, pair[0].member(50), mute.member(50))
    found = before = await edge.attempts("alpha", "clf", (1, 5))
    start, answers = edge.access_log_end(), collections.Counter[str]()
    began = datetime.now(UTC) - timedelta(milliseconds=1)  # Envoy's times are whole milliseconds
    while not found[5].ejected:
        answers += await statuses(platform, http, 2)
        found = await edge.attempts("alpha", "clf", (1, 5))
    assert set(answers) == {"r1"} and not found[1].ejected
    assert found[1].count - before[1].count == answers["r1"] and found[1].failed == before[1].failed
    assert found[5].failed == found[5].count >= 3 and before[5].count == 0
    records, _ = await platform.records(start, answers.total(), began)
    assert {record.revision for record in records} == {1}  # the log names who was asked last
    assert await edge.attempts("alpha", "clf", (9,)) == {9: Attempts()}


async def test_a_member_that_answers_badly_is_left_out_for_a_while(
    platform: Platform, model_server: Callable[..., ModelServer], pair: tuple[ModelServer, ModelServer]
) -> None:
    broken = model_server(3, fail=True)
    await shift(platform, pair[0].member(50), broken.member(50))
    async with Load(platform) as load:
        await load.more(400)
    assert 0 < len(load.failures) < 50
    assert set(load.answers) == {"1"}
