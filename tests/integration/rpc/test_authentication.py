"""Who gets in: every way in which a token can be wrong is refused, and says why."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from penstock.errors import PenstockError, PermissionDenied, Unauthenticated, Unavailable
from penstock.rpc import auth
from penstock.rpc.caller import Caller, caller
from penstock.rpc.channels import on_behalf_of
from penstock.rpc.keys import Keys
from penstock.rpc.tokens import Tokens
from tests.integration.rpc import echo_service
from tests.integration.rpc.echo_service import NAME, Platform, messages, services

GET = messages.GetEchoRequest(name=NAME)


async def test_a_good_token_gets_in_and_its_caller_is_known(platform: Platform) -> None:
    seen: list[Caller] = []

    async def answer(request: Any, context: Any) -> Any:
        seen.append(caller())
        return messages.Echo(name=request.name)

    platform.servicer.answer = answer
    reply = await platform.stub(platform.token("viewer", token_id="t1")).GetEcho(GET)
    assert reply.name == NAME
    assert dataclasses.replace(seen[0], expires=0) == Caller("ann", "vision", "viewer", "t1")


async def test_a_call_without_a_token_is_refused(platform: Platform) -> None:
    async with echo_service.bare_channel(platform) as channel:
        with pytest.raises(Exception, match="There is no token"):
            await services.EchoServiceStub(channel).GetEcho(GET)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda p: p.token(ttl=-60), "expired"),
        (lambda p: Tokens(Keys.generate()).mint("ann", "vision", "admin", 60), "signed by a key that is not"),
        (lambda p: p.token()[:-8] + "AAAAAAAA", "signature is wrong"),
        (lambda p: "not-a-token", "not valid"),
        (lambda p: "", "no token"),
    ],
    ids=["expired", "foreign", "changed", "malformed", "empty"],
)
async def test_a_wrong_token_is_refused_with_the_reason(platform: Platform, broken: Any, why: str) -> None:
    with pytest.raises(Unauthenticated, match=why):
        await platform.stub(broken(platform)).GetEcho(GET)


async def test_a_token_that_expires_after_its_first_use_is_refused(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = platform.stub(platform.token(ttl=60))
    await stub.GetEcho(GET)
    now = time.time()
    monkeypatch.setattr("penstock.rpc.tokens.time.time", lambda: now + 120)
    with pytest.raises(Unauthenticated, match="expired"):
        await stub.GetEcho(GET)


async def test_a_token_signed_by_the_older_live_key_still_gets_in(platform: Platform) -> None:
    older = Tokens(Keys((platform.tokens._keys.live[0],)))
    assert (await platform.stub(older.mint("ann", "vision", "viewer", 60)).GetEcho(GET)).name == NAME


async def test_a_revoked_token_is_refused_after_the_next_poll(platform: Platform) -> None:
    stub = platform.stub(platform.token(token_id="t9"))
    await stub.GetEcho(GET)
    platform.denied.add("t9")
    await platform.denylist.refresh()
    with pytest.raises(Unauthenticated, match="revoked"):
        await stub.GetEcho(GET)
    assert (await platform.stub(platform.token(token_id="t10")).GetEcho(GET)).name == NAME


async def test_an_unreadable_denylist_refuses_users_but_not_services() -> None:
    platform = await echo_service.start(poll=0.02, max_age=0.1)
    try:
        stub = platform.stub()
        await stub.GetEcho(GET)
        platform.readable = False
        platform.denylist._read -= 1
        async with echo_service.bare_channel(platform) as channel:  # without retries
            metadata = (("authorization", f"Bearer {platform.token()}"),)
            with pytest.raises(Exception, match="cannot be told now whether the token was revoked"):
                await services.EchoServiceStub(channel).GetEcho(GET, metadata=metadata)
        echo = platform.service_channels().stub(services.EchoServiceStub, "echo")
        assert (await echo.GetEcho(GET)).name == NAME
        platform.readable = True
        assert (await stub.GetEcho(GET)).name == NAME, "the retry of a read sees the list again"
    finally:
        await platform.close()


@pytest.mark.parametrize(
    ("role", "method", "request_"),
    [
        ("viewer", "CreateEcho", messages.CreateEchoRequest(parent="projects/vision")),
        ("editor", "UpdateEcho", messages.UpdateEchoRequest(echo=messages.Echo(name=NAME))),
        ("admin", "ListEverything", messages.ListEverythingRequest()),
        ("admin", "AskService", messages.ListEverythingRequest()),
        ("admin", "AppendEcho", GET),
        ("runner", "GetEcho", GET),
    ],
)
async def test_a_role_that_is_too_low_is_refused(platform: Platform, role: str, method: str, request_: Any) -> None:
    stub = platform.stub(platform.token(role, subject=NAME))
    with pytest.raises(PermissionDenied, match=method):
        await getattr(stub, method)(request_)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetEcho", messages.GetEchoRequest(name="projects/other/runs/one")),
        ("CreateEcho", messages.CreateEchoRequest(parent="projects/other")),
        ("CreateEcho", messages.CreateEchoRequest(parent="projects/vision", echo={"source": "projects/other/runs/a"})),
        ("CreateEcho", messages.CreateEchoRequest(parent="projects/vision", echo={"name": "projects/other/runs/a"})),
        ("UpdateEcho", messages.UpdateEchoRequest(echo=messages.Echo(name="projects/other/runs/one"))),
        ("GetEcho", messages.GetEchoRequest(name="projects/-/runs/one")),
    ],
)
async def test_another_project_is_refused_wherever_the_request_names_it(
    platform: Platform, method: str, request_: Any
) -> None:
    stub = platform.stub(platform.token("admin"))
    with pytest.raises(PermissionDenied, match="for project 'vision'"):
        await getattr(stub, method)(request_)
    home = platform.stub(platform.token("admin", platform=True))
    await getattr(home, method)(request_)


async def test_without_the_project_check_another_project_would_get_in(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    monkeypatch.setattr(auth.Authorizer, "check_request", lambda *_: None)
    request = messages.GetEchoRequest(name="projects/other/runs/one")
    assert (await platform.stub(platform.token("admin")).GetEcho(request)).name == request.name


async def test_text_that_only_looks_like_a_name_is_left_alone(platform: Platform) -> None:
    echo = messages.Echo(text="projects/other plans, see there")
    await platform.stub().CreateEcho(messages.CreateEchoRequest(parent="projects/vision", echo=echo))


async def test_a_platform_token_may_do_what_the_platform_may(platform: Platform) -> None:
    stub = platform.stub(platform.token("admin", platform=True))
    await stub.ListEverything(messages.ListEverythingRequest())
    with pytest.raises(PermissionDenied, match="services of Penstock only"):
        await stub.AskService(messages.ListEverythingRequest())


async def test_a_request_that_names_no_resource_says_which_field_is_missing(platform: Platform) -> None:
    with pytest.raises(PenstockError) as caught:
        await platform.stub().GetEcho(messages.GetEchoRequest())
    assert [violation.field for violation in caught.value.violations] == ["name"]


async def test_a_job_may_write_to_its_own_run_only(platform: Platform) -> None:
    stub = platform.stub(platform.token("runner", subject=NAME))
    await stub.AppendEcho(GET)
    for other in ("projects/vision/runs/two", "projects/vision/runs/one-more", "projects/other/runs/one"):
        with pytest.raises(PermissionDenied):
            await stub.AppendEcho(messages.GetEchoRequest(name=other))


async def test_a_service_acts_on_behalf_of_somebody_in_that_project_only(platform: Platform) -> None:
    seen: list[Caller] = []

    async def answer(request: Any, context: Any) -> Any:
        seen.append(caller())
        return messages.Echo(name=request.name)

    platform.servicer.answer = answer
    stub = platform.service_channels().stub(services.EchoServiceStub, "echo")
    await stub.GetEcho(messages.GetEchoRequest(name="projects/other/runs/one"))
    with on_behalf_of("vision", "ann@example.org/ümlaut"):
        await stub.GetEcho(GET)
        with pytest.raises(PermissionDenied):
            await stub.GetEcho(messages.GetEchoRequest(name="projects/other/runs/one"))
    assert [(c.actor, c.project) for c in seen] == [("service:echo", ""), ("ann@example.org/ümlaut", "vision")]


async def test_only_a_service_may_say_on_whose_behalf_it_acts(platform: Platform) -> None:
    stub = platform.stub(platform.token("admin", platform=True))
    with on_behalf_of("vision", "bob"), pytest.raises(PermissionDenied, match="Only a service"):
        await stub.GetEcho(GET)


async def test_a_public_method_needs_no_token(platform: Platform) -> None:
    async with echo_service.bare_channel(platform) as channel:
        await services.EchoServiceStub(channel).Greet(messages.ListEverythingRequest())


async def test_every_request_of_a_stream_is_checked(platform: Platform) -> None:
    async def requests(*names: str) -> Any:
        for name in names:
            yield messages.GetEchoRequest(name=name, text="x")

    stub = platform.stub()
    assert (await stub.UploadEcho(requests(NAME, NAME))).text == "x x"
    assert [m.text async for m in stub.ChatEcho(requests(NAME, NAME))] == ["x", "x"]
    with pytest.raises(PermissionDenied):
        await stub.UploadEcho(requests(NAME, "projects/other/runs/one"))
    with pytest.raises(PermissionDenied):
        async for _ in stub.ChatEcho(requests(NAME, "projects/other/runs/one")):
            pass


async def test_an_unknown_address_is_unavailable(platform: Platform) -> None:
    with pytest.raises(Unavailable, match="No address of the service 'nowhere'"):
        await platform.service_channels().stub(services.EchoServiceStub, "nowhere").GetEcho(GET)
