"""proto <-> model, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from penstock import names
from penstock.api.project.v1 import project_service_pb2 as pb
from penstock.api.project.v1.project_service_pb2_grpc import ProjectServiceServicer
from penstock.errors import InvalidArgument
from penstock.rpc.caller import caller
from penstock.rpc.masks import apply_field_mask
from penstock.rpc.paging import decode_token, encode_token, page_size
from penstock.rpc.request_ids import request_id, request_key, resource_id
from penstock.rpc.times import to_timestamp
from penstock.store import Aggregates, Page, Stored
from services.project import model
from services.project.commands import Projects
from services.project.tokens import TokenCommands

V = TypeVar("V")
Context = Any


def _role(role: str) -> pb.Role.ValueType:
    return pb.Role.Value(f"ROLE_{role.upper()}")


def _role_name(role: pb.Role.ValueType) -> str:
    known = role in pb.Role.values()  # a newer client may know more
    return pb.Role.Name(role).removeprefix("ROLE_").lower() if known else "unknown"


def _project(stored: Stored[model.Project]) -> pb.Project:
    value = stored.value
    return pb.Project(
        name=value.name,
        display_name=value.display_name,
        create_time=to_timestamp(value.create_time),
        update_time=to_timestamp(value.update_time),
        etag=stored.etag,
        sequence=stored.sequence,
    )


def _token(stored: Stored[model.Token], text: str = "") -> pb.Token:
    value = stored.value
    return pb.Token(
        name=value.name,
        subject=value.subject,
        role=_role(value.role),
        create_time=to_timestamp(value.create_time),
        expire_time=to_timestamp(value.expire_time),
        revoke_time=to_timestamp(value.revoke_time),
        text=text,
    )


def _member(stored: Stored[model.Member]) -> pb.Member:
    value = stored.value
    return pb.Member(
        name=value.name, subject=value.subject, role=_role(value.role), create_time=to_timestamp(value.create_time)
    )


def _secret(stored: Stored[model.Secret]) -> pb.Secret:
    value = stored.value
    return pb.Secret(
        name=value.name, create_time=to_timestamp(value.create_time), update_time=to_timestamp(value.update_time)
    )


def _ttl(spec: pb.Token | pb.Publisher, field: str) -> timedelta | None:
    try:
        return spec.ttl.ToTimedelta() if spec.HasField("ttl") else None
    except (OverflowError, ValueError):
        raise InvalidArgument("This is no duration.", field=field) from None


class ProjectServicer(ProjectServiceServicer):
    """The project API."""

    def __init__(self, projects: Projects, tokens: TokenCommands) -> None:
        self._projects = projects
        self._tokens = tokens
        self._repository = projects.repository

    async def CreateProject(self, request: pb.CreateProjectRequest, context: Context) -> pb.Project:
        return _project(
            await self._projects.create(
                request.project_id, request.project.display_name, caller().actor, request_key(request, "projects")
            )
        )

    async def GetProject(self, request: pb.GetProjectRequest, context: Context) -> pb.Project:
        return _project(await self._repository.projects.get(str(names.parse(request.name, kind="project"))))

    async def ListProjects(self, request: pb.ListProjectsRequest, context: Context) -> pb.ListProjectsResponse:
        page = await self._repository.projects.find(
            limit=page_size(request.page_size), after=decode_token(request.page_token, request)
        )
        return pb.ListProjectsResponse(
            projects=[_project(stored) for stored in page], next_page_token=encode_token(page.next, request)
        )

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.Token:
        project = names.parse(request.parent, kind="project", field="parent").project
        spec = request.token
        ttl, again = _ttl(spec, "token.ttl"), request_id(request)
        token_id = resource_id(request, project)
        return _token(*await self._tokens.create(project, token_id, spec.subject, _role_name(spec.role), ttl, again))

    async def GetToken(self, request: pb.GetTokenRequest, context: Context) -> pb.Token:
        return _token(await self._repository.tokens.get(str(names.parse(request.name, kind="token"))))

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        page = await self._of_project(self._repository.tokens, request)
        return pb.ListTokensResponse(
            tokens=[_token(stored) for stored in page], next_page_token=encode_token(page.next, request)
        )

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.Token:
        return _token(await self._tokens.revoke(str(names.parse(request.name, kind="token"))))

    async def ListDeniedTokens(
        self, request: pb.ListDeniedTokensRequest, context: Context
    ) -> pb.ListDeniedTokensResponse:
        return pb.ListDeniedTokensResponse(ids=await self._tokens.denied())

    async def UpdateMember(self, request: pb.UpdateMemberRequest, context: Context) -> pb.Member:
        def role(stored: model.Member | None) -> str:
            if stored is None:
                return _role_name(request.member.role)
            current = pb.Member(name=stored.name, role=_role(stored.role))
            return _role_name(apply_field_mask(request.update_mask, request.member, current).role)

        allow_missing = request.allow_missing
        return _member(await self._tokens.update_member(request.member.name, role, allow_missing=allow_missing))

    async def GetMember(self, request: pb.GetMemberRequest, context: Context) -> pb.Member:
        return _member(await self._repository.members.get(str(names.parse(request.name, kind="member"))))

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        page = await self._of_project(self._repository.members, request)
        return pb.ListMembersResponse(
            members=[_member(stored) for stored in page], next_page_token=encode_token(page.next, request)
        )

    async def DeleteMember(self, request: pb.DeleteMemberRequest, context: Context) -> Empty:
        await self._tokens.remove_member(str(names.parse(request.name, kind="member")))
        return Empty()

    async def CreateSecret(self, request: pb.CreateSecretRequest, context: Context) -> pb.Secret:
        project = names.parse(request.parent, kind="project", field="parent").project
        value, again = request.secret.value, request_key(request, project)
        return _secret(await self._projects.create_secret(project, request.secret_id, value, again))

    async def GetSecret(self, request: pb.GetSecretRequest, context: Context) -> pb.Secret:
        return _secret(await self._repository.secrets.get(str(names.parse(request.name, kind="secret"))))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        page = await self._of_project(self._repository.secrets, request)
        return pb.ListSecretsResponse(
            secrets=[_secret(stored) for stored in page], next_page_token=encode_token(page.next, request)
        )

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, context: Context) -> Empty:
        name = str(names.parse(request.name, kind="secret"))
        await self._repository.secrets.delete(await self._repository.secrets.get(name))
        return Empty()

    async def AccessSecret(self, request: pb.AccessSecretRequest, context: Context) -> pb.AccessSecretResponse:
        name = str(names.parse(request.name, kind="secret"))
        return pb.AccessSecretResponse(value=await self._projects.read_secret(name))

    async def CreatePublisher(self, request: pb.CreatePublisherRequest, context: Context) -> pb.Publisher:
        project = names.parse(request.parent, kind="project", field="parent").project
        stored, credentials = await self._projects.create_publisher(
            project, request.publisher_id, _ttl(request.publisher, "publisher.ttl"), request_key(request, project)
        )
        made = self._publisher(stored)
        made.credentials = credentials
        return made

    async def GetPublisher(self, request: pb.GetPublisherRequest, context: Context) -> pb.Publisher:
        name = str(names.parse(request.name, kind="publisher"))
        return self._publisher(await self._repository.publishers.get(name))

    async def ListPublishers(self, request: pb.ListPublishersRequest, context: Context) -> pb.ListPublishersResponse:
        page = await self._of_project(self._repository.publishers, request)
        return pb.ListPublishersResponse(
            publishers=[self._publisher(stored) for stored in page], next_page_token=encode_token(page.next, request)
        )

    async def GetAuditEntry(self, request: pb.GetAuditEntryRequest, context: Context) -> pb.AuditEntry:
        name = names.parse(request.name, kind="audit_entry")
        return _audit_entry(name.project, await self._repository.audit_entry(name))

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        project = names.parse(request.parent, kind="project", field="parent").project
        page = await self._repository.audit_page(
            project, request.subject, page_size(request.page_size), decode_token(request.page_token, request)
        )
        return pb.ListAuditEntriesResponse(
            audit_entries=[_audit_entry(project, row) for row in page],
            next_page_token=encode_token(page.next, request),
        )

    async def RecordAuditEntries(self, request: pb.RecordAuditEntriesRequest, context: Context) -> Empty:
        await self._projects.record(_audit_fields(entry) for entry in request.audit_entries)
        return Empty()

    def _publisher(self, stored: Stored[model.Publisher]) -> pb.Publisher:
        value = stored.value
        return pb.Publisher(
            name=value.name,
            create_time=to_timestamp(value.create_time),
            expire_time=to_timestamp(value.expire_time),
            url=self._projects.nats_url,
        )

    async def _of_project(self, collection: Aggregates[V], request: Any) -> Page[Stored[V]]:
        project = names.parse(request.parent, kind="project", field="parent").project
        return await collection.find(
            eq={"project": project},
            order_by="id",
            limit=page_size(request.page_size),
            after=decode_token(request.page_token, request),
        )


_AUDIT_TEXTS: Sequence[str] = (
    "subject", "on_behalf_of", "token", "token_project", "method", "resource", "outcome", "request_id",
)  # fmt: skip


def _audit_entry(project: str, row: dict[str, Any]) -> pb.AuditEntry:
    entry = pb.AuditEntry(
        name=names.build("audit_entry", project, row["order"]),
        time=to_timestamp(datetime.fromisoformat(row["time"])),
    )
    for field in _AUDIT_TEXTS:
        setattr(entry, field, row.get(field, ""))
    return entry


def _audit_fields(entry: Message) -> dict[str, Any]:
    fields = {field: getattr(entry, field) for field in _AUDIT_TEXTS}
    fields["time"] = entry.time.ToDatetime(UTC)  # type: ignore[attr-defined]
    return fields
