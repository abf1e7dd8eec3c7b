"""Tokens and members: who gets which role, and how soon it ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from penstock.api.event.v1.event_service_pb2 import WatchEventsRequest
from penstock.api.event.v1.event_service_pb2_grpc import EventServiceStub
from penstock.api.pipeline.v1.pipeline_service_pb2 import ListPipelinesRequest
from penstock.api.project.v1 import project_service_pb2 as pb
from penstock.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from tests.integration.project.conftest import ADMIN, EDITOR, VIEWER, Api
from tests.support.hosts import World
from tests.support.pipeline_platform import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_token_works_in_its_project_with_its_role_and_is_listed_without_its_text(api: Api) -> None:
    made = await api.token("mo", VIEWER, ttl=3600)
    assert made.expire_time.seconds - made.create_time.seconds == 3600
    listed = (await api.tokens())[made.name]
    assert (listed.subject, listed.role, listed.text) == ("mo", VIEWER, "")
    pipelines = api.pipelines(made.text)
    await pipelines.ListPipelines(ListPipelinesRequest(parent=api.parent))
    with pytest.raises(PermissionDenied):
        await pipelines.ListPipelines(ListPipelinesRequest(parent="projects/default"))
    with pytest.raises(PermissionDenied):
        await Api(api.world, api.project, made.text).token("friend")


async def test_a_token_that_is_asked_for_again_by_the_same_request_is_the_same_one(api: Api, world: World) -> None:
    request = pb.CreateTokenRequest(parent=api.parent, token=pb.Token(subject="mo", role=VIEWER), request_id="one")
    first = await api.api.CreateToken(request)
    request.token.role = ADMIN  # whatever it says now
    again = await api.api.CreateToken(request)
    assert len(await api.tokens()) == 1
    assert (again.name, again.role, again.create_time, again.expire_time) == (
        first.name, VIEWER, first.create_time, first.expire_time,
    )  # fmt: skip
    assert _claims(again.text) == _claims(first.text)
    await api.pipelines(again.text).ListPipelines(ListPipelinesRequest(parent=api.parent))
    other = Api(world, api.project, world.mint(api.project, "admin", "other"))
    assert (await other.api.CreateToken(request)).name != first.name
    await api.api.RevokeToken(pb.RevokeTokenRequest(name=first.name))
    with pytest.raises(FailedPrecondition, match="was revoked"):
        await api.api.CreateToken(request)


def _claims(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))


async def test_what_is_known_of_a_token_and_of_a_member_can_be_read(api: Api) -> None:
    made = await api.token("mo")
    assert await api.api.GetToken(pb.GetTokenRequest(name=made.name)) == (await api.tokens())[made.name]
    member = await api.member("mo", EDITOR)
    assert await api.api.GetMember(pb.GetMemberRequest(name=f"{api.parent}/members/%6Do")) == member
    for missing in (
        api.api.GetToken(pb.GetTokenRequest(name=f"{api.parent}/tokens/none")),
        api.api.GetMember(pb.GetMemberRequest(name=f"{api.parent}/members/none")),
    ):
        with pytest.raises(NotFound):
            await missing


async def test_a_member_is_added_only_where_that_is_wanted_and_changed_as_the_mask_says(api: Api) -> None:
    member = pb.Member(name=f"{api.parent}/members/mo", role=EDITOR)
    with pytest.raises(NotFound):
        await api.api.UpdateMember(pb.UpdateMemberRequest(member=member))
    with pytest.raises(NotFound):
        await api.api.GetMember(pb.GetMemberRequest(name=member.name))
    made = await api.member("mo", EDITOR)
    member.role = pb.ROLE_UNSPECIFIED
    assert await api.api.UpdateMember(pb.UpdateMemberRequest(member=member)) == made  # it sets nothing
    for path, field in (("role", "member.role"), ("colour", "update_mask")):
        request = pb.UpdateMemberRequest(member=member, update_mask=FieldMask(paths=[path]))
        with pytest.raises(InvalidArgument) as caught:
            await api.api.UpdateMember(request)
        assert caught.value.violations[0].field == field
    member.role = VIEWER
    asked = pb.UpdateMemberRequest(member=member, update_mask=FieldMask(paths=["subject"]))
    assert (await api.api.UpdateMember(asked)).role == EDITOR
    asked.update_mask.paths[:] = ["role"]
    assert (await api.api.UpdateMember(asked)).role == VIEWER


async def test_the_text_of_a_token_is_stored_nowhere(api: Api, world: World) -> None:
    made = await api.token("mo")
    signature = made.text.rsplit(".", 1)[1]
    database = world.running.contexts["project"].database()
    for name in ("tokens", "audit", "events"):
        for document in await database.collection(name).find({}).to_list(None):
            assert signature not in json.dumps(document, default=str)


@pytest.mark.parametrize(
    ("subject", "role", "seconds", "field"),
    [
        ("", EDITOR, 60, "token.subject"),
        ("x" * 2000, EDITOR, 60, "token.subject"),
        ("mo", pb.ROLE_UNSPECIFIED, 60, "token.role"),
        ("mo", 17, 60, "token.role"),
        ("mo", EDITOR, -1, "token.ttl"),
        ("mo", EDITOR, 0, "token.ttl"),
        ("mo", EDITOR, 366 * 86400, "token.ttl"),
        ("mo", EDITOR, 10**17, "token.ttl"),
    ],
)
async def test_a_token_that_cannot_be_meant_is_refused(
    api: Api, subject: str, role: Any, seconds: int, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await api.token(subject, role, ttl=seconds)
    assert caught.value.violations[0].field == field


async def test_a_member_gets_no_token_beyond_the_members_role(api: Api) -> None:
    await api.member("mo%40plant", VIEWER)
    with pytest.raises(InvalidArgument) as caught:
        await api.token("mo@plant", EDITOR)
    assert caught.value.violations[0].field == "token.role"
    assert (await api.token("mo@plant", VIEWER)).role == VIEWER


async def test_another_spelling_of_a_members_name_is_the_same_member(api: Api) -> None:
    await api.member("%6Do", VIEWER)
    listed = (await api.api.ListMembers(pb.ListMembersRequest(parent=api.parent))).members
    assert [(m.name, m.subject) for m in listed] == [(f"{api.parent}/members/mo", "mo")]
    with pytest.raises(InvalidArgument):
        await api.token("mo", ADMIN)


async def test_lowering_a_members_role_revokes_the_tokens_that_exceed_it(api: Api) -> None:
    await api.member("mo", ADMIN)
    high, low = await api.token("mo", EDITOR), await api.token("mo", VIEWER)
    other = await api.token("jo", EDITOR)
    await api.member("mo", VIEWER)
    found = await api.tokens()
    assert found[high.name].HasField("revoke_time")
    assert not found[low.name].HasField("revoke_time")
    assert not found[other.name].HasField("revoke_time")


async def test_a_token_made_while_the_role_is_lowered_does_not_outlive_it(api: Api) -> None:
    """Whichever comes first, no token with more than the role is left that is not revoked."""
    await api.member("mo", ADMIN)
    await asyncio.gather(*(api.token("mo", ADMIN) for _ in range(4)), api.member("mo", VIEWER), return_exceptions=True)
    left = [t for t in (await api.tokens()).values() if t.subject == "mo" and not t.HasField("revoke_time")]
    assert left == []


async def test_removing_a_member_revokes_all_the_members_tokens(api: Api) -> None:
    await api.member("mo", EDITOR)
    made = await api.token("mo", EDITOR)
    await api.api.DeleteMember(pb.DeleteMemberRequest(name=f"{api.parent}/members/mo"))
    assert (await api.tokens())[made.name].HasField("revoke_time")
    with pytest.raises(NotFound):
        await api.api.DeleteMember(pb.DeleteMemberRequest(name=f"{api.parent}/members/mo"))


async def test_a_revoked_token_is_refused_within_5_seconds_and_its_streams_end(api: Api, world: World) -> None:
    made = await api.token("mo")
    pipelines = api.pipelines(made.text)
    events = world.stub(EventServiceStub, "pipeline", made.text)
    stream = asyncio.ensure_future(read_all(events.WatchEvents(WatchEventsRequest(parent=api.parent))))
    await pipelines.ListPipelines(ListPipelinesRequest(parent=api.parent))
    began = time.monotonic()
    first = await api.api.RevokeToken(pb.RevokeTokenRequest(name=made.name))
    with pytest.raises(Unauthenticated, match="revoked"):
        await asyncio.wait_for(stream, 5)
    with pytest.raises(Unauthenticated, match="revoked"):
        await pipelines.ListPipelines(ListPipelinesRequest(parent=api.parent))
    assert time.monotonic() - began < 5
    again = await api.api.RevokeToken(pb.RevokeTokenRequest(name=made.name))
    assert again.revoke_time == first.revoke_time
    with pytest.raises(NotFound):
        await api.api.RevokeToken(pb.RevokeTokenRequest(name=f"{api.parent}/tokens/none"))


async def read_all(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


async def test_the_edge_is_told_of_revocations(api: Api, world: World) -> None:
    made = await api.token("mo")
    await api.api.RevokeToken(pb.RevokeTokenRequest(name=made.name))
    id = made.name.rsplit("/", 1)[1]
    folder = world.settings.home / "envoy"

    async def told() -> bool:
        with contextlib.suppress(FileNotFoundError):  # a draft that was moved into place meanwhile
            return any(id in path.read_text() for path in folder.rglob("*") if path.is_file())
        return False

    await eventually(told, 5)
