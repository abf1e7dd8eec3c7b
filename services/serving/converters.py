"""Between the API's messages and the model; no rules live here."""

from __future__ import annotations

from datetime import timedelta

from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.rpc.times import to_timestamp
from penstock.store import Stored
from services.serving.model import Endpoint, Revision


def endpoint_message(stored: Stored[Endpoint]) -> pb.Endpoint:
    """The resource, as the API shows it."""
    endpoint = stored.value
    serving = endpoint.revision(endpoint.serving)
    return pb.Endpoint(
        name=endpoint.name,
        state=pb.Endpoint.State.Value(endpoint.state),
        weights={str(member.revision): member.weight for member in endpoint.traffic},
        revision=endpoint.revision_name(endpoint.serving),
        previous_revision=endpoint.revision_name(endpoint.previous),
        model_version=serving.model_version if serving else "",
        generation=endpoint.generation,
        observed_generation=endpoint.observed,
        create_time=to_timestamp(endpoint.created),
        update_time=to_timestamp(endpoint.updated),
        etag=stored.etag,
        sequence=stored.sequence,
        path=f"/v2/models/{endpoint.id}",
    )


def revision_message(stored: Stored[Endpoint], revision: Revision) -> pb.Revision:
    """The resource, as the API shows it; its sequence is that of its endpoint."""
    endpoint = stored.value
    message = pb.Revision(
        name=endpoint.revision_name(revision.number),
        number=revision.number,
        model_version=revision.model_version,
        state=pb.Revision.State.Value(revision.state.value),
        weight=endpoint.weight(revision.number),
        reason=revision.reason,
        steps=revision.steps,
        step=revision.step,
        author=revision.author,
        create_time=to_timestamp(revision.created),
        ready_time=to_timestamp(revision.ready),
        end_time=to_timestamp(revision.ended),
        sequence=stored.sequence,
    )
    message.hold.FromTimedelta(timedelta(seconds=revision.hold))
    return message
