"""The project service as it runs: projects, secrets, publishers, the audit log."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.errors import Error as NatsError

from penstock.api.pipeline.v1.pipeline_service_pb2 import DeletePipelineRequest
from penstock.api.project.v1 import project_service_pb2 as pb
from penstock.api.project.v1.project_service_pb2_grpc import ProjectServiceStub
from penstock.backing.stack import Stack
from penstock.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied
from penstock.events.credentials import inbox_prefix
from penstock.rpc.channels import Channels, on_behalf_of
from penstock.rpc.tokens import ServiceTokens
from tests.integration.project.conftest import EDITOR, Api
from tests.support.hosts import World
from tests.support.pipeline_platform import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_creating_a_project_twice_with_one_request_id_makes_one(world: World) -> None:
    home = Api(world, "x", world.home_token()).api
    id = "p" + secrets.token_hex(4)
    request = pb.CreateProjectRequest(project_id=id, project=pb.Project(display_name="Vision"), request_id="one")
    first = await home.CreateProject(request)
    assert await home.CreateProject(request) == first
    assert (first.name, first.display_name, first.sequence) == (f"projects/{id}", "Vision", 1)
    with pytest.raises(AlreadyExists):
        await home.CreateProject(pb.CreateProjectRequest(project_id=id, request_id="two"))
    with pytest.raises(InvalidArgument) as caught:
        await home.CreateProject(pb.CreateProjectRequest(project_id="Not An Id"))
    assert caught.value.violations[0].field == "project_id"
    assert f"projects/{id}" in {p.name for p in (await home.ListProjects(pb.ListProjectsRequest())).projects}


async def test_only_the_platform_makes_projects(api: Api) -> None:
    with pytest.raises(PermissionDenied):
        await api.api.CreateProject(pb.CreateProjectRequest(project_id="another"))


async def test_secrets_are_sealed_in_the_database_and_read_by_services_only(api: Api, world: World) -> None:
    value = b"correct horse battery staple"
    create = pb.CreateSecretRequest(parent=api.parent, secret_id="s3", secret=pb.Secret(value=value))
    made = await api.api.CreateSecret(create)
    assert made.value == b""
    listed = (await api.api.ListSecrets(pb.ListSecretsRequest(parent=api.parent))).secrets
    assert [(s.name, s.value) for s in listed] == [(f"{api.parent}/secrets/s3", b"")]
    database = world.running.contexts["project"].database()
    stored = json.dumps(await database.collection("secrets").find({}).to_list(None), default=str)
    assert "battery" not in stored
    with pytest.raises(PermissionDenied):
        await api.api.AccessSecret(pb.AccessSecretRequest(name=made.name))
    source = ServiceTokens(world.running.tokens, "service:training")
    service = world.stub(ProjectServiceStub, "project", source("project"))
    assert (await service.AccessSecret(pb.AccessSecretRequest(name=made.name))).value == value
    assert await api.api.GetSecret(pb.GetSecretRequest(name=made.name)) == made
    await api.api.DeleteSecret(pb.DeleteSecretRequest(name=made.name))
    for missing in (
        service.AccessSecret(pb.AccessSecretRequest(name=made.name)),
        api.api.GetSecret(pb.GetSecretRequest(name=made.name)),
    ):
        with pytest.raises(NotFound):
            await missing


async def test_a_secret_is_never_replaced_by_another_of_its_name(api: Api, world: World) -> None:
    create = pb.CreateSecretRequest(parent=api.parent, secret_id="s3", secret=pb.Secret(value=b"1"), request_id="one")
    made = await api.api.CreateSecret(create)
    service = world.stub(ProjectServiceStub, "project", ServiceTokens(world.running.tokens, "service:x")("project"))

    async def value() -> bytes:
        found: bytes = (await service.AccessSecret(pb.AccessSecretRequest(name=made.name))).value
        return found

    create.secret.value = b"2"
    assert (await api.api.CreateSecret(create), await value()) == (made, b"1")  # the same request
    other = Api(world, api.project, world.mint(api.project, "admin", "other"))  # another one's "one" is another
    for admin, request_id in ((api, "two"), (other, "one")):
        create.request_id = request_id
        with pytest.raises(AlreadyExists):
            await admin.api.CreateSecret(create)
    assert await value() == b"1"
    await api.api.DeleteSecret(pb.DeleteSecretRequest(name=made.name))
    create.request_id = "one"
    await api.api.CreateSecret(create)
    assert await value() == b"2"


async def test_a_publisher_may_publish_outside_events_of_its_project_and_nothing_else(
    api: Api, servers: Stack, tmp_path: Path
) -> None:
    request = pb.CreatePublisherRequest(parent=api.parent, publisher_id="camera")
    made = await api.api.CreatePublisher(request)
    assert made.url == servers.nats_url
    with pytest.raises(AlreadyExists):
        await api.api.CreatePublisher(request)
    listed = (await api.api.ListPublishers(pb.ListPublishersRequest(parent=api.parent))).publishers
    assert [(p.name, p.credentials) for p in listed] == [(made.name, "")]
    assert await api.api.GetPublisher(pb.GetPublisherRequest(name=made.name)) == listed[0]
    file = tmp_path / "camera.creds"
    file.write_text(made.credentials)
    refused: list[Exception] = []

    async def note(error: Exception) -> None:
        refused.append(error)

    prefix = inbox_prefix(f"{api.project}_camera").encode()
    client = await nats.connect(made.url, user_credentials=str(file), inbox_prefix=prefix, error_cb=note)
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "a.b", "ce-source": "//c"}
    answer = await client.request(f"penstock.{api.project}.external.cam.x", b"{}", headers=headers, timeout=5)
    assert json.loads(answer.data)["stream"] == "PENSTOCK_EXTERNAL"
    for subject in (f"penstock.{api.project}.dataset.dataset.d.x", "penstock.other.external.cam.x"):
        with pytest.raises(NatsError):
            await client.request(subject, b"{}", timeout=0.5)
    await client.subscribe("penstock.>")
    await client.flush()
    await eventually(lambda: enough(refused, 3))
    await client.close()


async def test_a_publisher_that_is_asked_for_again_by_the_same_request_is_the_same_one(
    api: Api, tmp_path: Path
) -> None:
    request = pb.CreatePublisherRequest(parent=api.parent, publisher_id="camera", request_id="one")
    first, again = await api.api.CreatePublisher(request), await api.api.CreatePublisher(request)
    assert (again.name, again.create_time, again.expire_time) == (first.name, first.create_time, first.expire_time)
    assert _heard(again.credentials) == _heard(first.credentials)
    assert abs(_claims(again.credentials)["exp"] - first.expire_time.seconds) <= 1
    file = tmp_path / "again.creds"
    file.write_text(again.credentials)
    prefix = inbox_prefix(f"{api.project}_camera").encode()
    client = await nats.connect(again.url, user_credentials=str(file), inbox_prefix=prefix)
    headers = {"ce-specversion": "1.0", "ce-id": "2", "ce-type": "a.b", "ce-source": "//c"}
    answer = await client.request(f"penstock.{api.project}.external.cam.x", b"{}", headers=headers, timeout=5)
    assert json.loads(answer.data)["stream"] == "PENSTOCK_EXTERNAL"
    await client.close()


async def test_publishers_of_two_projects_never_share_an_inbox(world: World) -> None:
    """`a` + `b-c` and `a-b` + `c` would be one name, if a dash stood between."""
    home = Api(world, "x", world.home_token()).api
    first = "p" + secrets.token_hex(4)
    heard = []
    for project, publisher in ((first, "lab-camera"), (f"{first}-lab", "camera")):
        await home.CreateProject(pb.CreateProjectRequest(project_id=project))
        request = pb.CreatePublisherRequest(parent=f"projects/{project}", publisher_id=publisher)
        heard.append(_heard((await home.CreatePublisher(request)).credentials))
    assert heard[0] and heard[1] and heard[0].isdisjoint(heard[1])


def _heard(credentials: str) -> set[str]:
    """The subjects that the user of some credentials may subscribe to."""
    return set(_claims(credentials)["nats"]["sub"]["allow"])


def _claims(credentials: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(credentials.splitlines()[1].split(".")[1] + "=="))


async def enough(refused: list[Exception], count: int) -> bool:
    return len([error for error in refused if "permissions violation" in str(error).lower()]) >= count


async def test_the_audit_log_says_who_did_what_for_whom_with_which_token_and_how_it_ended(
    api: Api, world: World
) -> None:
    made = await api.token("mo", EDITOR)
    with pytest.raises(PermissionDenied):
        await Api(world, api.project, made.text).token("friend")
    source = ServiceTokens(world.running.tokens, "service:pipeline")
    channels = Channels({"project": world.running.address}, source)
    with on_behalf_of(api.project, "mo"), pytest.raises(NotFound):
        await channels.stub(ProjectServiceStub, "project").RevokeToken(
            pb.RevokeTokenRequest(name=f"{api.parent}/tokens/none")
        )
    await channels.close()

    async def all_there() -> Any:
        found = [e for e in await api.audit() if "Token" in e.method]
        return found if len(found) >= 3 else None

    by_service, by_mo, by_root = await eventually(all_there)
    service = "penstock.api.project.v1.ProjectService"
    assert (by_root.subject, by_root.method, by_root.outcome) == ("root", f"{service}.CreateToken", "OK")
    assert (by_mo.subject, by_mo.token, by_mo.outcome) == ("mo", made.name.rsplit("/", 1)[1], "PERMISSION_DENIED")
    assert (by_service.subject, by_service.on_behalf_of) == ("service:pipeline", "mo")
    assert (by_service.resource, by_service.outcome) == (f"{api.parent}/tokens/none", "NOT_FOUND")
    assert by_root.request_id
    assert {e.name for e in await api.audit(subject="mo")} == {by_mo.name, by_service.name}
    assert await api.api.GetAuditEntry(pb.GetAuditEntryRequest(name=by_mo.name)) == by_mo
    elsewhere = by_mo.name.replace(api.project, "default")
    with pytest.raises(NotFound):
        await Api(world, "default", world.home_token()).api.GetAuditEntry(pb.GetAuditEntryRequest(name=elsewhere))


async def test_an_audit_record_that_is_sent_again_is_one_entry(api: Api, world: World) -> None:
    entry = pb.AuditEntry(subject="ann", method="m", resource=api.parent, outcome="OK", request_id="r1", token="t")
    entry.time.FromNanoseconds(1_800_000_000_123_456_789)
    other = pb.AuditEntry()
    other.CopyFrom(entry)
    other.method = "n"
    service = world.stub(ProjectServiceStub, "project", ServiceTokens(world.running.tokens, "service:x")("project"))
    for _ in range(3):
        await service.RecordAuditEntries(pb.RecordAuditEntriesRequest(audit_entries=[entry, other]))
    found = [e for e in await api.audit() if e.token == "t"]
    assert sorted(e.method for e in found) == ["m", "n"]
    with pytest.raises(PermissionDenied):
        await api.api.RecordAuditEntries(pb.RecordAuditEntriesRequest(audit_entries=[entry]))


async def test_a_call_about_something_misspelt_does_not_hold_up_the_audit_log(api: Api, world: World) -> None:
    editor = api.pipelines(world.mint(api.project))
    for wrong in ("projects/", "projects/NOT-A-PROJECT/pipelines/x", "projects/" + "x" * 600, "nothing"):
        with pytest.raises((InvalidArgument, PermissionDenied)):
            await editor.DeletePipeline(DeletePipelineRequest(name=wrong))
    await api.token("after")

    async def there() -> bool:
        return any(e.method.endswith("CreateToken") for e in await api.audit())

    await eventually(there, 10)
    home = Api(world, "-", world.home_token())
    listed = await home.api.ListAuditEntries(pb.ListAuditEntriesRequest(parent="projects/-"))
    assert "nothing" in {entry.resource for entry in listed.audit_entries}


async def test_nobody_writes_into_the_audit_log_of_another_project(api: Api, world: World) -> None:
    """With a subject that the project knows, even: an admin may give a token to anybody."""
    stranger = Api(world, "elsewhere", world.mint("elsewhere", "admin", subject="mo"))
    with pytest.raises(PermissionDenied):
        await stranger.api.DeleteSecret(pb.DeleteSecretRequest(name=f"projects/{api.project}/secrets/payroll"))
    await api.token("after")

    async def there() -> bool:
        return any(e.method.endswith("CreateToken") for e in await api.audit())

    await eventually(there, 10)
    assert not [e for e in await api.audit() if e.method.endswith("DeleteSecret")]
    [entry] = [e for e in await stranger.audit() if e.method.endswith("DeleteSecret")]
    assert (entry.subject, entry.token_project, entry.outcome) == ("mo", "elsewhere", "PERMISSION_DENIED")


async def test_viewers_and_editors_may_not_see_the_audit_log(api: Api, world: World) -> None:
    for role in ("viewer", "editor"):
        with pytest.raises(PermissionDenied):
            await Api(world, api.project, world.mint(api.project, role)).audit()
