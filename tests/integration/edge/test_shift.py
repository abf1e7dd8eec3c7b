"""Traffic moves between revisions while requests run: none fails, and Envoy says what it does."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import aiohttp
import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from penstock.edge import PREDICTION_HEADER, Attempts, routes
from penstock.edge.files import replace_json
from penstock.errors import Unavailable
from tests.integration.edge.conftest import INFER, ModelServer, Platform, shift, slow

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


async def test_no_request_fails_while_weights_change(platform: Platform, pair: tuple[ModelServer, ModelServer]) -> None:
    first, second = pair
    async with Load(platform) as load:
        for step in range(12):
            await shift(platform, first.member(1 + 99 * (step % 2)), second.member(100 - 99 * (step % 2)))
            await load.more(30)
        await shift(platform, second.member(100))
        await load.more(10)  # those that were on their way
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


async def test_a_draining_member_gets_nothing_new_and_finishes_what_it_has(
    platform: Platform, http: aiohttp.ClientSession, pair: tuple[ModelServer, ModelServer]
) -> None:
    first, second = pair
    edge = platform.edge
    await shift(platform, first.member())
    running = [asyncio.create_task(slow(platform, http, 2.5)) for _ in range(3)]
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
