"""ServingService on the wire: messages to values and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.empty_pb2 import Empty

from penstock import names
from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.api.serving.v1.serving_service_pb2_grpc import ServingServiceServicer
from penstock.errors import InvalidArgument
from penstock.rpc.caller import caller
from penstock.rpc.paging import decode_token, encode_token, page_size
from penstock.rpc.request_ids import resource_id
from penstock.rpc.watch import Signals, watch
from penstock.store import Stored
from services.serving.commands import Commands
from services.serving.converters import endpoint_message, revision_message
from services.serving.model import FOLLOWED, Endpoint, Revision
from services.serving.queries import find_revision, list_revisions

Context = Any


@dataclass(frozen=True)
class ServingServicer(ServingServiceServicer):
    """Converts, delegates, returns. `signals` tells watchers that an endpoint has changed."""

    commands: Commands
    signals: Signals

    async def DeployModel(self, request: pb.DeployModelRequest, context: Context) -> pb.Revision:
        name = _endpoint(request.name)
        names.check_id(names.parse(name).id, "name")
        made = await self.commands.deploy(
            name,
            request.model_version,
            request.steps,
            _hold(request),
            author=caller().actor,
            request=resource_id(request, name),
        )
        return revision_message(*made)

    async def RollbackEndpoint(self, request: pb.RollbackEndpointRequest, context: Context) -> pb.Revision:
        name = _endpoint(request.name)
        made = await self.commands.rollback(name, author=caller().actor, request=resource_id(request, name))
        return revision_message(*made)

    async def GetEndpoint(self, request: pb.GetEndpointRequest, context: Context) -> pb.Endpoint:
        return endpoint_message(await self.commands.repository.endpoints.get(_endpoint(request.name)))

    async def ListEndpoints(self, request: pb.ListEndpointsRequest, context: Context) -> pb.ListEndpointsResponse:
        project = names.parse(request.parent, kind="project", field="parent").id
        page = await self.commands.repository.list_endpoints(
            project, page_size(request.page_size), decode_token(request.page_token, request)
        )
        endpoints = [endpoint_message(stored) for stored in page]
        return pb.ListEndpointsResponse(endpoints=endpoints, next_page_token=encode_token(page.next, request))

    async def DeleteEndpoint(self, request: pb.DeleteEndpointRequest, context: Context) -> Empty:
        await self.commands.delete(_endpoint(request.name), request.etag)
        return Empty()

    async def GetRevision(self, request: pb.GetRevisionRequest, context: Context) -> pb.Revision:
        return revision_message(*await self._revision(request.name))

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Context) -> pb.ListRevisionsResponse:
        name = _endpoint(request.parent, "parent")
        stored, page, following = await list_revisions(
            self.commands.repository,
            name,
            page_size(request.page_size),
            decode_token(request.page_token, request),
        )
        revisions = [revision_message(stored, revision) for revision in page]
        return pb.ListRevisionsResponse(revisions=revisions, next_page_token=encode_token(following, request))

    async def WatchRevision(self, request: pb.WatchRevisionRequest, context: Context) -> AsyncIterator[pb.Revision]:
        resource = names.parse(request.name, kind="revision")
        changes = watch(
            lambda: self._revision(request.name),
            version=lambda found: (found[1], found[0].value.weight(found[1].number)),
            done=lambda found: found[1].state in FOLLOWED,
            signals=self.signals,
            key=resource.parent,
        )
        async for found in changes:
            yield revision_message(*found)

    async def _revision(self, name: str) -> tuple[Stored[Endpoint], Revision]:
        return await find_revision(self.commands.repository, names.parse(name, kind="revision"))


def _endpoint(name: str, field: str = "name") -> str:
    return str(names.parse(name, kind="endpoint", field=field))


def _hold(request: pb.DeployModelRequest) -> float | None:
    if not request.HasField("hold"):
        return None
    try:
        return request.hold.ToTimedelta().total_seconds()
    except (OverflowError, ValueError) as error:
        raise InvalidArgument("hold is a duration of at most an hour.", field="hold") from error
