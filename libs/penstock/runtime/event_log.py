"""The rpc behind gaps, dead letters and replays: each process answers for the events of the services that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock import names
from penstock.api.event.v1 import event_service_pb2 as pb
from penstock.api.event.v1.event_service_pb2_grpc import (
    EventLogServiceServicer,
    add_EventLogServiceServicer_to_server,
)
from penstock.errors import NotFound
from penstock.events import Bus, DeadLetter, DeadLetters, EventLog, replay
from penstock.events.event_log import MAX_EVENTS
from penstock.rpc.paging import decode_token, encode_token, page_size
from penstock.rpc.server import Registration
from penstock.store import Database

PROJECTIONS = ("lineage",)  # the consumers that can be rebuilt by a replay


class EventLogServicer(EventLogServiceServicer):
    """Serves the `events` and `dead_letters` collections of the services in this process."""

    def __init__(self, databases: Mapping[str, Database], buses: Mapping[str, Bus]) -> None:
        self._databases = databases
        self._buses = buses

    def _database(self, service: str, field: str) -> Database:
        found = self._databases.get(service)
        if found is None:
            here = ", ".join(sorted(self._databases))
            raise NotFound(f"The service '{service}' does not run in this process, which has: {here}.", field=field)
        return found

    async def prepare(self) -> None:
        """Make the indexes."""
        for database in self._databases.values():
            await EventLog(database).prepare()

    async def ListEvents(self, request: pb.ListEventsRequest, context: Any) -> pb.ListEventsResponse:
        service = names.parse(request.resource, field="resource").service
        log = EventLog(self._database(service, "resource"))
        limit = min(request.page_size, MAX_EVENTS) if request.page_size > 0 else MAX_EVENTS
        events = await log.of_resource(request.resource, request.after_sequence, limit)
        return pb.ListEventsResponse(events=[event.to_proto() for event in events])

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        letters = DeadLetters(self._database(request.service, "service"))
        after = decode_token(request.page_token, request)
        page = await letters.list(limit=page_size(request.page_size), after=after)
        return pb.ListDeadLettersResponse(
            dead_letters=[_letter(request.service, letter) for letter in page],
            next_page_token=encode_token(page.next, request),
        )

    async def RetryDeadLetter(self, request: pb.RetryDeadLetterRequest, context: Any) -> pb.DeadLetter:
        letters = DeadLetters(self._database(request.service, "service"))
        return _letter(request.service, await letters.retry(request.id))

    async def DropDeadLetter(self, request: pb.DropDeadLetterRequest, context: Any) -> pb.DeadLetter:
        letters = DeadLetters(self._database(request.service, "service"))
        return _letter(request.service, await letters.drop(request.id))

    async def ReplayEvents(self, request: pb.ReplayEventsRequest, context: Any) -> pb.ReplayEventsResponse:
        database = self._database(request.service, "service")
        counts = [await replay(database, self._buses[request.service], name) for name in PROJECTIONS]
        return pb.ReplayEventsResponse(events=max(counts))


def registration(servicer: EventLogServicer) -> Registration:
    """How a server is given it."""
    name = pb.DESCRIPTOR.services_by_name["EventLogService"].full_name
    return Registration(add_EventLogServiceServicer_to_server, servicer, name)


def _letter(service: str, letter: DeadLetter) -> pb.DeadLetter:
    return pb.DeadLetter(
        id=letter.id,
        service=service,
        consumer=letter.consumer,
        resource=letter.resource,
        event=letter.event.to_proto(),
        error=letter.error,
        attempts=letter.attempts,
    )
