"""What can be done to endpoints. Each command is durable, in one document, when it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock import names
from penstock.api.training.v1.training_service_pb2 import GetModelVersionRequest, ModelVersion
from penstock.backing.triton_environment import TritonEnvironment
from penstock.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from penstock.rpc.channels import on_behalf_of
from penstock.rpc.request_ids import check_repeat
from penstock.store import Cause, Stored, current_cause, now
from services.serving import transitions
from services.serving.model import WHOLE, Endpoint, Revision
from services.serving.repository import Repository

if TYPE_CHECKING:
    from penstock.api.training.v1.training_service_pb2_grpc import TrainingServiceAsyncStub

MAX_STEPS = 20
HOLD_SECONDS = (0.1, 3600.0)
DEFAULT_HOLD = 5.0


@dataclass(frozen=True)
class Commands:
    """The use cases. `environment` raises FailedPrecondition without Triton; `wake` tells the reconciler."""

    repository: Repository
    training: TrainingServiceAsyncStub
    environment: Callable[[], TritonEnvironment]
    wake: Callable[[str], None]

    async def deploy(
        self, name: str, model_version: str, steps: Sequence[int], hold: float | None, *, author: str, request: str
    ) -> tuple[Stored[Endpoint], Revision]:
        """Queue a revision of a model version; the endpoint is made if need be. The same `request` gives the same one.

        Raises InvalidArgument, NotFound (model version), FailedPrecondition (Triton is not set up, or the endpoint is
        being deleted), AlreadyExists if what that request made is of another model version or has other steps.
        """
        known = await self._known(name, request)
        asked = check_steps(steps), check_hold(hold)
        if known is not None:
            check_repeat(same=(known[1].model_version, known[1].steps) == (model_version, asked[0]))
            return known
        project = names.project_of(name)
        if names.parse(model_version, kind="model_version", field="model_version").project != project:
            raise InvalidArgument("An endpoint serves models of its own project only.", field="model_version")
        found = await self._model_version(model_version, project, author)
        await asyncio.to_thread(self.environment)
        revision = _asked(author, request, model_version, found.artifact, steps=asked[0], hold=asked[1])
        stored = await self._queue(name, revision)
        self.wake(name)
        return _made(stored, request)

    async def rollback(self, name: str, *, author: str, request: str) -> tuple[Stored[Endpoint], Revision]:
        """Queue a revision of what was served before; during a shift, end that: then what serves is answered.

        The same `request` again does nothing more. One that ended a shift has left no revision to know it by, so the
        document remembers it.

        Raises NotFound, FailedPrecondition if nothing else was served.
        """
        known = await self._known(name, request)
        if known is not None:
            return known
        asked = _asked(author, request)
        stored = await self.repository.change(
            name, lambda endpoint: transitions.rollback(endpoint, asked), request=request
        )
        self.wake(name)
        return _made(stored, request)

    async def delete(self, name: str, etag: str = "") -> None:
        """Ask for an endpoint's end; it is gone a moment later. Raises NotFound; Conflict for another `etag`."""
        moment = now()
        await self.repository.change(name, lambda endpoint: transitions.delete(endpoint, moment), etag=etag)
        self.wake(name)

    async def _known(self, name: str, request: str) -> tuple[Stored[Endpoint], Revision] | None:
        """What this request has made already."""
        try:
            stored = await self.repository.endpoints.get(name)
        except NotFound:
            return None
        for revision in stored.value.revisions:
            if revision.request == request:
                return stored, revision
        archived = await self.repository.archived_by_request(request)
        return (stored, archived) if archived is not None else None

    async def _queue(self, name: str, revision: Revision) -> Stored[Endpoint]:
        while True:
            try:
                return await self.repository.change(name, lambda endpoint: transitions.deploy(endpoint, revision))
            except NotFound:
                pass  # the first revision makes the endpoint
            last = await self.repository.last_number(name)
            first = transitions.deploy(transitions.new_endpoint(name, revision.created, last), revision)
            try:
                return await self.repository.endpoints.create(name, first)
            except AlreadyExists:
                continue  # another first revision was faster

    async def _model_version(self, name: str, project: str, author: str) -> ModelVersion:
        with on_behalf_of(project, author):
            try:
                found = await self.training.GetModelVersion(GetModelVersionRequest(name=name))
            except NotFound as error:
                raise NotFound(f"{error.message} Choose a version that exists.", field="model_version") from error
        if not found.artifact:
            raise FailedPrecondition(f"{name} has no files that could be served.", field="model_version")
        return found


def check_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """The steps of a shift, 100 by default. Raises InvalidArgument unless they ascend to 100."""
    asked = tuple(steps) or (WHOLE,)
    ascending = all(before < after for before, after in zip((0, *asked), asked, strict=False))
    if not ascending or asked[-1] != WHOLE or len(asked) > MAX_STEPS:
        raise InvalidArgument(
            f"steps are ascending per cents that end with 100, at most {MAX_STEPS}: such as 10, 50, 100.", field="steps"
        )
    return asked


def check_hold(hold: float | None) -> float:
    """How long a step is watched, in seconds. Raises InvalidArgument."""
    if hold is None:
        return DEFAULT_HOLD
    least, most = HOLD_SECONDS
    if not least <= hold <= most:
        raise InvalidArgument(f"hold is {least:g} s to {most:g} s.", field="hold")
    return hold


def _asked(author: str, request: str, model_version: str = "", artifact: str = "", **shift: Any) -> Revision:
    """A revision to be, with the chain that it belongs to."""
    cause = current_cause.get() or Cause()
    return Revision(
        0,
        model_version,
        artifact,
        author,
        now(),
        request=request,
        correlation_id=cause.correlation_id,
        causation_id=cause.causation_id,
        traceparent=cause.traceparent,
        **shift,
    )


def _made(stored: Stored[Endpoint], request: str) -> tuple[Stored[Endpoint], Revision]:
    """The revision of a request; without one of its own, what serves."""
    endpoint = stored.value
    found = next((r for r in endpoint.revisions if r.request == request), None) or endpoint.revision(endpoint.serving)
    assert found is not None
    return stored, found
