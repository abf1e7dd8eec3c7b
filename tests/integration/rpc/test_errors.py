"""Domain errors over a real server: what is raised in a servicer is what the caller gets, and nothing more."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2

from penstock import errors
from penstock.errors import FieldViolation, PenstockError
from penstock.rpc import calls
from penstock.rpc.errors import DETAILS_KEY, DeadlineExceeded, from_rpc_error
from tests.integration.rpc import echo_service
from tests.integration.rpc.echo_service import NAME, Platform, messages, services

GET = messages.GetEchoRequest(name=NAME)
CREATE = messages.CreateEchoRequest(parent="projects/vision", request_id="r1")  # of no retried method name
KINDS = [
    (errors.NotFound, grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"),
    (errors.Conflict, grpc.StatusCode.ABORTED, "CONFLICT"),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    (errors.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION, "FAILED_PRECONDITION"),
    (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED"),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
    (errors.DataCorrupt, grpc.StatusCode.DATA_LOSS, "DATA_CORRUPT"),
]


def raising(platform: Platform, error: BaseException) -> None:
    async def answer(request: Any, context: Any) -> Any:
        raise error

    platform.servicer.answer = answer


async def raw_error(platform: Platform, role: str = "editor") -> grpc.aio.AioRpcError:
    """What a client without Penstock's channels gets."""
    async with echo_service.bare_channel(platform) as channel:
        metadata = (("authorization", f"Bearer {platform.token(role)}"),)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services.EchoServiceStub(channel).GetEcho(GET, metadata=metadata)
    return caught.value


def details(error: grpc.aio.AioRpcError) -> list[Any]:
    trailers: Any = dict(error.trailing_metadata() or ())
    found = []
    for packed in status_pb2.Status.FromString(trailers[DETAILS_KEY]).details:
        kind = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])
        message = kind()
        packed.Unpack(message)
        found.append(message)
    return found


@pytest.mark.parametrize(("kind", "code", "reason"), KINDS, ids=[kind.__name__ for kind, _, _ in KINDS])
async def test_each_domain_error_travels(
    platform: Platform, kind: type[PenstockError], code: grpc.StatusCode, reason: str
) -> None:
    raising(platform, kind("Do this instead.", field="echo.text", metadata={"limit": "3"}))
    error = await raw_error(platform)
    assert (error.code(), error.details()) == (code, "Do this instead.")
    info = details(error)[0]
    assert (info.domain, info.reason, dict(info.metadata)) == ("penstock", reason, {"limit": "3"})

    back = from_rpc_error(error)
    assert type(back) is kind
    assert (back.message, back.metadata) == ("Do this instead.", {"limit": "3"})
    assert back.violations == (FieldViolation("echo.text", "Do this instead."),)


async def test_unavailable_says_when_to_try_again(platform: Platform) -> None:
    raising(platform, errors.Unavailable("Not now."))
    assert details(await raw_error(platform))[-1].retry_delay.seconds == 1


async def test_a_subclass_has_the_code_of_its_base_and_its_own_reason(platform: Platform) -> None:
    class DraftFrozen(errors.FailedPrecondition):
        pass

    raising(platform, DraftFrozen("The draft is frozen."))
    error = await raw_error(platform)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert details(error)[0].reason == "DRAFT_FROZEN"


async def test_long_texts_and_many_violations_still_arrive(platform: Platform) -> None:
    violations = [FieldViolation(f"rows[{n}]", "ä" * 2000) for n in range(500)]
    raising(platform, errors.InvalidArgument("ö" * 50_000, violations=violations))
    error = from_rpc_error(await raw_error(platform))
    assert isinstance(error, errors.InvalidArgument)
    assert error.message.startswith("ööö") and error.violations[0].field == "rows[0]"


async def test_an_unknown_error_shows_nothing_outside_and_everything_inside(platform: Platform) -> None:
    raising(platform, RuntimeError("password=hunter2"))
    with structlog.testing.capture_logs() as logs:
        error = await raw_error(platform)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in str(error) and "hunter2" not in repr(details(error))
    incident = details(error)[0].metadata["incident"]
    assert incident in (error.details() or "")
    logged = next(entry for entry in logs if entry["event"] == "unknown error")
    assert logged["incident"] == incident and "hunter2" in str(logged["exc_info"])


async def test_without_the_mapping_the_text_of_an_unknown_error_would_show(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""

    async def through(self: Any, call: Any, error: Exception) -> None:
        raise error

    monkeypatch.setattr(calls.CallInterceptor, "_refuse", through)
    raising(platform, RuntimeError("password=hunter2"))
    assert "hunter2" in str(await raw_error(platform))


async def test_an_error_of_another_service_passes_through_but_not_its_doubt_in_our_token(platform: Platform) -> None:
    inner = platform.stub()

    async def answer(request: Any, context: Any) -> Any:
        if request.text == "inner":
            raise errors.NotFound("There is no such echo.", field="name")
        return await inner.GetEcho(messages.GetEchoRequest(name=NAME, text="inner"))

    platform.servicer.answer = answer
    with pytest.raises(errors.NotFound, match="no such echo"):
        await platform.stub().GetEcho(GET)


async def test_the_error_of_a_stream_arrives_after_its_messages(platform: Platform) -> None:
    async def stream(request: Any, context: Any) -> Any:
        yield messages.Echo(text="one")
        raise errors.FailedPrecondition("It was cancelled.")

    platform.servicer.stream = stream
    got = []
    with pytest.raises(errors.FailedPrecondition, match="cancelled"):
        async for message in platform.stub().WatchEcho(GET):
            got.append(message.text)
    assert got == ["one"]


async def test_a_servicer_that_aborts_by_itself_is_left_alone(platform: Platform) -> None:
    async def answer(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "beyond the end")

    platform.servicer.answer = answer
    assert (await raw_error(platform)).code() is grpc.StatusCode.OUT_OF_RANGE
    with pytest.raises(errors.InvalidArgument, match="beyond the end"):
        await platform.stub().GetEcho(GET)


async def test_a_call_beyond_its_deadline_says_so(platform: Platform) -> None:
    cancelled = asyncio.Event()

    async def answer(request: Any, context: Any) -> Any:
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    stub = platform.stub()
    await stub.GetEcho(GET)  # connected
    platform.servicer.answer = answer
    with pytest.raises(DeadlineExceeded, match="look before trying again"):
        await stub.GetEcho(GET, timeout=0.5)
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_call_without_a_deadline_gets_one() -> None:
    platform = await echo_service.start(deadline=0.1)
    try:

        async def answer(request: Any, context: Any) -> Any:
            await asyncio.sleep(30)

        platform.servicer.answer = answer
        error = await raw_error(platform)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "longer than 0.1 s" in (error.details() or "")
    finally:
        await platform.close()


async def test_a_server_that_is_not_there_is_unavailable_and_says_what_to_do(platform: Platform) -> None:
    stub = platform.stub()
    await platform.server.stop(0)
    with pytest.raises(errors.Unavailable, match="penstock status"):
        await stub.UpdateEcho(messages.UpdateEchoRequest())


async def test_a_message_that_is_too_large_is_refused_by_name(platform: Platform) -> None:
    with pytest.raises(errors.ResourceExhausted):
        await platform.stub().GetEcho(messages.GetEchoRequest(name=NAME, text="x" * (17 * 1024 * 1024)))


async def test_from_rpc_error_reads_synchronous_errors_too(platform: Platform) -> None:
    raising(platform, errors.NotFound("There is no such echo."))

    def call() -> PenstockError:
        with grpc.insecure_channel(platform.server.address) as channel:
            get: Any = channel.unary_unary(
                "/penstock.test.v1.EchoService/GetEcho", request_serializer=lambda m: m.SerializeToString()
            )
            try:
                get(GET, metadata=(("authorization", f"Bearer {platform.token()}"),), timeout=5)
            except grpc.RpcError as error:
                return from_rpc_error(error)
            raise AssertionError("it must fail")

    assert isinstance(await asyncio.to_thread(call), errors.NotFound)
