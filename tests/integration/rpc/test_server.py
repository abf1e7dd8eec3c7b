"""The server around the servicers: health, reflection, figures, audit, causes, retries, and how it starts and stops."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import generate_latest

from penstock.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Unavailable
from penstock.rpc import causes
from penstock.rpc.access import MissingAccess
from penstock.rpc.server import Registration, Server
from penstock.store.outbox import Cause, current_cause
from tests.integration.rpc import echo_service
from tests.integration.rpc.echo_service import NAME, SERVICE, Platform, messages, services

health_stub: Any = health_pb2_grpc.HealthStub  # the stubs of these two know synchronous channels only
reflection_stub: Any = reflection_pb2_grpc.ServerReflectionStub
GET = messages.GetEchoRequest(name=NAME)
CREATE = messages.CreateEchoRequest(parent="projects/vision")


async def test_health_tells_that_it_serves_and_needs_no_token(platform: Platform) -> None:
    async with echo_service.bare_channel(platform) as channel:
        for service in ("", SERVICE):
            answer = await health_stub(channel).Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def reflected(platform: Platform, token: str) -> set[str]:
    async with echo_service.bare_channel(platform) as channel:
        stub = reflection_stub(channel)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]), metadata=metadata)
        async for answer in call:
            return {service.name for service in answer.list_services_response.service}
    raise AssertionError("no answer")


async def test_reflection_lists_the_services_here_or_those_it_was_told() -> None:
    here = await echo_service.start()
    told = await echo_service.start(reflected=[SERVICE, "penstock.test.v1.NamelessService"])
    try:
        assert SERVICE in await reflected(here, here.token("viewer"))
        assert {SERVICE, "penstock.test.v1.NamelessService"} < await reflected(told, told.token("viewer"))
    finally:
        await here.close()
        await told.close()


async def test_reflection_needs_a_token(platform: Platform) -> None:
    platform.denied.add("revoked")
    await platform.denylist.refresh()
    for token in ("", "nonsense", platform.token(token_id="revoked"), platform.token(ttl=-60)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflected(platform, token)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(("name", "why"), [("Unsafe", "say who may call it"), ("Nameless", "no field of its request")])
async def test_a_method_that_is_not_safe_to_serve_keeps_the_server_from_starting(
    platform: Platform, name: str, why: str
) -> None:
    add = getattr(services, f"add_{name}ServiceServicer_to_server")
    registration = Registration(add, object(), f"penstock.test.v1.{name}Service")
    with pytest.raises(MissingAccess, match=why):
        Server("127.0.0.1:0", [registration], platform.tokens, platform.denylist)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:8420", "example.org:8420"])
async def test_listening_beyond_this_machine_without_tls_is_refused(platform: Platform, address: str) -> None:
    with pytest.raises(InvalidArgument, match="without TLS"):
        Server(address, [], platform.tokens, platform.denylist)


async def test_a_port_in_use_is_an_error_that_says_so(platform: Platform) -> None:
    server = Server(platform.server.address, [], platform.tokens, platform.denylist)
    with pytest.raises(FailedPrecondition, match="another process has the port"):
        await server.start()


async def test_figures_count_calls_by_method_and_code(platform: Platform) -> None:
    await platform.stub().GetEcho(GET)
    with pytest.raises(PermissionDenied):
        await platform.stub(platform.token("viewer")).CreateEcho(CREATE)
    text = generate_latest(platform.registry).decode()
    assert f'penstock_rpc_calls_total{{code="OK",method="GetEcho",service="{SERVICE}"}} 1.0' in text
    assert f'penstock_rpc_calls_total{{code="PERMISSION_DENIED",method="CreateEcho",service="{SERVICE}"}} 1.0' in text
    assert f'penstock_rpc_seconds_count{{method="GetEcho",service="{SERVICE}"}} 1.0' in text
    assert f'penstock_rpc_running{{method="GetEcho",service="{SERVICE}"}} 0.0' in text


async def test_writes_are_audited_done_or_refused_and_reads_are_not(platform: Platform) -> None:
    await platform.stub().GetEcho(GET)
    await platform.stub(platform.token(token_id="t1")).CreateEcho(CREATE)
    with pytest.raises(PermissionDenied):
        await platform.stub(platform.token("viewer", subject="bob")).CreateEcho(CREATE)
    await echo_service.eventually(lambda: len(platform.audited) == 2)
    assert [(a.caller.subject, a.method, a.resource, a.outcome) for a in platform.audited] == [
        ("ann", f"{SERVICE}.CreateEcho", "projects/vision", "OK"),
        ("bob", f"{SERVICE}.CreateEcho", "projects/vision", "PERMISSION_DENIED"),
    ]
    assert platform.audited[0].caller.token_id == "t1" and platform.audited[0].request_id


async def caused(platform: Platform, stub: Any, *metadata: tuple[str, str]) -> Cause:
    seen: list[Cause | None] = []

    async def answer(request: Any, context: Any) -> Any:
        seen.append(current_cause.get())
        return messages.Echo()

    platform.servicer.answer = answer
    await stub.GetEcho(GET, metadata=metadata)
    assert seen[0] is not None
    return seen[0]


async def test_a_users_call_begins_a_chain_under_its_request_id(platform: Platform) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    sent = (("x-request-id", "abc"), ("traceparent", trace), ("x-penstock-correlation-id", "forged"))
    assert await caused(platform, platform.stub(), *sent) == Cause("abc", "request:abc", trace)
    fresh = await caused(platform, platform.stub(), ("x-request-id", "no good id"), ("traceparent", "junk"))
    assert fresh.correlation_id and fresh.correlation_id != "no good id" and fresh.traceparent.startswith("00-")


async def test_a_services_call_continues_the_chain(platform: Platform) -> None:
    stub = platform.service_channels(metadata=causes.outgoing).stub(services.EchoServiceStub, "echo")
    cause = Cause("chain-1", "projects/vision/runs/one@3", f"00-{'a' * 32}-{'b' * 16}-01")
    token = current_cause.set(cause)
    try:
        assert await caused(platform, stub) == cause
    finally:
        current_cause.reset(token)


async def failing_at_first(platform: Platform, failures: int) -> list[str]:
    seen: list[str] = []

    async def answer(request: Any, context: Any) -> Any:
        seen.append(getattr(request, "request_id", ""))
        if len(seen) <= failures:
            raise Unavailable("Not now.")
        return messages.Echo(name=NAME)

    platform.servicer.answer = answer
    return seen


async def test_reads_and_creates_are_retried_creates_under_one_request_id(platform: Platform) -> None:
    seen = await failing_at_first(platform, 2)
    assert (await platform.stub().GetEcho(GET)).name == NAME
    assert len(seen) == 3
    seen = await failing_at_first(platform, 2)
    await platform.stub().CreateEcho(CREATE)
    assert len(seen) == 3 and len(set(seen)) == 1 and seen[0]


async def test_what_may_not_be_repeated_is_sent_once(platform: Platform) -> None:
    seen = await failing_at_first(platform, 2)
    with pytest.raises(Unavailable):
        await platform.stub(platform.token("admin")).UpdateEcho(
            messages.UpdateEchoRequest(echo=messages.Echo(name=NAME))
        )
    assert len(seen) == 1


async def test_a_graceful_stop_lets_running_calls_finish_and_ends_streams(platform: Platform) -> None:
    running = asyncio.Event()

    async def answer(request: Any, context: Any) -> Any:
        running.set()
        await asyncio.sleep(0.3)
        return messages.Echo(text="finished")

    platform.servicer.answer = answer
    call = asyncio.create_task(platform.stub(platform.token("admin", platform=True)).CreateEcho(CREATE))
    first = asyncio.Event()

    async def follow() -> None:
        async for _ in platform.stub().WatchEcho(GET):
            first.set()

    stream = asyncio.create_task(follow())
    await asyncio.wait_for(asyncio.gather(running.wait(), first.wait()), 5)
    late = platform.stub()
    stopping = asyncio.create_task(platform.server.stop(5))
    await asyncio.sleep(0.1)
    with pytest.raises(Unavailable):
        await late.UpdateEcho(messages.UpdateEchoRequest(echo=messages.Echo(name=NAME)))
    assert (await asyncio.wait_for(call, 5)).text == "finished"
    with pytest.raises(Unavailable, match="stopping"):
        await asyncio.wait_for(stream, 5)
    await asyncio.wait_for(stopping, 5)
    assert [record.outcome for record in platform.audited] == ["OK"]


async def test_a_stop_does_not_wait_longer_than_its_grace(platform: Platform) -> None:
    async def answer(request: Any, context: Any) -> Any:
        await asyncio.sleep(60)

    platform.servicer.answer = answer
    call = asyncio.create_task(platform.stub().UploadEcho(_endless()))
    get = asyncio.create_task(platform.stub().GetEcho(GET, timeout=2))
    await asyncio.sleep(0.2)
    await asyncio.wait_for(platform.server.stop(0.1), 5)
    results = await asyncio.wait_for(asyncio.gather(call, get, return_exceptions=True), 10)
    assert all(isinstance(result, Exception) for result in results)


async def _endless() -> Any:
    yield GET
    await asyncio.Event().wait()
