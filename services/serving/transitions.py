"""Every step by which a revision comes to serve and goes again: pure changes of the endpoint, with their events.

Each may be done again: what does not apply (any more) gives back the same endpoint, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from google.protobuf.message import Message

from penstock import names
from penstock.errors import FailedPrecondition
from services.serving import facts
from services.serving.model import COMING, KEPT, WHOLE, Change, Endpoint, Member, Revision, RevisionState


def new_endpoint(name: str, moment: datetime, last: int) -> Endpoint:
    """An endpoint without revisions; `last` is the highest number that an earlier endpoint of this name gave."""
    return Endpoint(name, names.project_of(name), created=moment, updated=moment, last=last)


def deploy(endpoint: Endpoint, revision: Revision) -> Endpoint:
    """Queue a revision under the next number. Raises FailedPrecondition while the endpoint is being deleted."""
    _check_stays(endpoint)
    if any(revision.request == known.request for known in endpoint.revisions):
        return endpoint
    added = replace(revision, number=endpoint.last + 1)
    return replace(endpoint, revisions=(*endpoint.revisions, added), last=added.number, updated=revision.created)


def rollback(endpoint: Endpoint, asked: Revision) -> Endpoint:
    """Queue `asked` with the model that was served before; or, during a shift, end that: what serves goes on serving.

    Raises FailedPrecondition if nothing else was served.
    """
    _check_stays(endpoint)
    if any(asked.request == known.request for known in endpoint.revisions):
        return endpoint
    if endpoint.serving and endpoint.candidate:
        coming = [revision.number for revision in endpoint.revisions if revision.state in COMING]
        return _edited(endpoint, coming, reason=f"The shift was rolled back by {asked.author}.")
    before = endpoint.revision(endpoint.previous)
    if before is None:
        raise FailedPrecondition(f"{endpoint.name} served nothing else before: there is nothing to go back to.")
    return deploy(endpoint, replace(asked, model_version=before.model_version, artifact=before.artifact))


def begin(endpoint: Endpoint, number: int) -> Endpoint:
    """PENDING -> STARTING."""
    return _moved(endpoint, number, RevisionState.PENDING, RevisionState.STARTING)


def started(endpoint: Endpoint, number: int) -> Endpoint:
    """STARTING -> VERIFYING: it is loaded."""
    return _moved(endpoint, number, RevisionState.STARTING, RevisionState.VERIFYING)


def enter(endpoint: Endpoint, number: int) -> Endpoint:
    """VERIFYING -> SHIFTING: it answered its examples and gets the share of its first step.

    With nothing to share the traffic with, the first step is the last one.
    """
    found = endpoint.revision(number)
    if found is None or found.state is not RevisionState.VERIFYING or found.reason:
        return endpoint
    step = 0 if endpoint.serving else len(found.steps) - 1
    return _shared(_edited(endpoint, [number], state=RevisionState.SHIFTING, step=step), number, found.steps[step])


def advance(endpoint: Endpoint, number: int, step: int) -> Endpoint:
    """The next step of a shift whose step `step` was judged good."""
    found = endpoint.revision(number)
    if found is None or found.state is not RevisionState.SHIFTING or found.step != step or found.reason:
        return endpoint
    return _shared(_edited(endpoint, [number], step=step + 1), number, found.steps[step + 1])


def withdraw(endpoint: Endpoint, number: int, reason: str, moment: datetime) -> Change:
    """Give a coming revision up: FAILED at once if it has no traffic, else once the edge was seen to take it away."""
    found = endpoint.revision(number)
    if found is None or found.state not in COMING:
        return endpoint
    reason = found.reason or reason
    if found.state is not RevisionState.SHIFTING:
        return _failed(endpoint, number, reason, moment)
    if found.reason and endpoint.wanted_weight(number) == 0:
        return endpoint
    return _shared(_edited(endpoint, [number], reason=reason), number, 0)


def suspend(endpoint: Endpoint, number: int) -> Endpoint:
    """A revision with traffic is gone: no requests for it until `resume`."""
    if number in endpoint.suspended or endpoint.wanted_weight(number) == 0:
        return endpoint
    return touch(replace(endpoint, suspended=(*endpoint.suspended, number)))


def resume(endpoint: Endpoint, number: int) -> Endpoint:
    """It is back, and answers its examples."""
    if number not in endpoint.suspended:
        return endpoint
    return touch(replace(endpoint, suspended=tuple(other for other in endpoint.suspended if other != number)))


def touch(endpoint: Endpoint, at_least: int = 0) -> Endpoint:
    """Want what is wanted anew: the edge's files must be written again."""
    return replace(endpoint, generation=max(endpoint.generation, at_least) + 1)


def observe(endpoint: Endpoint, generation: int, moment: datetime) -> Change:
    """The edge was seen to use `generation`: the traffic is as wanted, and what waited for that comes about."""
    if generation != endpoint.generation or endpoint.observed == generation:
        return endpoint
    shares = tuple(member for member in endpoint.members if member.weight)
    seen: list[Message] = []
    if shares != endpoint.traffic:
        seen.append(facts.traffic_changed(endpoint, generation, shares))
    current = replace(endpoint, observed=generation, traffic=shares, updated=moment)
    candidate = current.candidate
    if candidate is not None and candidate.state is RevisionState.SHIFTING:
        if candidate.reason and current.wanted_weight(candidate.number) == 0:
            current, more = _failed(current, candidate.number, candidate.reason, moment)
            seen.extend(more)
        elif _has_all(current, candidate):
            current, ready = _promoted(current, candidate, moment)
            seen.append(ready)
    return current, tuple(seen)


def drop(endpoint: Endpoint, number: int) -> Endpoint:
    """A revision without traffic has ended its requests: it leaves the edge."""
    if all(member.revision != number or member.weight for member in endpoint.members):
        return endpoint
    suspended = tuple(other for other in endpoint.suspended if other != number)
    members = tuple(member for member in endpoint.members if member.revision != number)
    return touch(replace(endpoint, members=members, suspended=suspended))


def cleaned(endpoint: Endpoint, number: int, moment: datetime) -> Endpoint:
    """Nothing of a revision is left: DRAINING -> REMOVED, while FAILED stays FAILED."""
    found = endpoint.revision(number)
    if found is None or found.clean:
        return endpoint
    if found.state is RevisionState.DRAINING:
        return _edited(endpoint, [number], state=RevisionState.REMOVED, ended=moment, clean=True)
    return _edited(endpoint, [number], clean=True)


def delete(endpoint: Endpoint, moment: datetime) -> Change:
    """Ask for its end; revisions that do not serve yet fail."""
    if endpoint.deleting:
        return endpoint
    seen: list[Message] = []
    current = replace(endpoint, deleting=True, updated=moment)
    for revision in endpoint.revisions:
        if revision.state in COMING:
            current, more = _failed(current, revision.number, revision.reason or "The endpoint was deleted.", moment)
            seen.extend(more)
    return current, tuple(seen)


def old_ones(endpoint: Endpoint) -> tuple[Revision, ...]:
    """The revisions that should leave the document, oldest first."""
    spare = [r for r in endpoint.revisions if r.clean and r.number not in (endpoint.serving, endpoint.previous)]
    return tuple(spare[: max(0, len(endpoint.revisions) - KEPT)])


def without(endpoint: Endpoint, archived: Iterable[Revision]) -> Endpoint:
    """The document without revisions that are rows now."""
    gone = {revision.number for revision in archived}
    return replace(endpoint, revisions=tuple(r for r in endpoint.revisions if r.number not in gone))


def _has_all(endpoint: Endpoint, candidate: Revision) -> bool:
    alive = candidate.number not in endpoint.suspended
    return alive and not candidate.reason and endpoint.wanted_weight(candidate.number) == WHOLE


def _promoted(endpoint: Endpoint, candidate: Revision, moment: datetime) -> tuple[Endpoint, Message]:
    old = endpoint.serving
    current = _edited(endpoint, [candidate.number], state=RevisionState.SERVING, ready=moment)
    if old:
        current = _edited(current, [old], state=RevisionState.DRAINING, ended=moment)
    current = replace(current, serving=candidate.number, previous=old)
    return current, facts.revision_ready(current, candidate, endpoint.revision_name(old))


def _failed(endpoint: Endpoint, number: int, reason: str, moment: datetime) -> tuple[Endpoint, tuple[Message, ...]]:
    current = _edited(endpoint, [number], state=RevisionState.FAILED, reason=reason, ended=moment)
    found = current.revision(number)
    assert found is not None
    return replace(current, updated=moment), (facts.revision_failed(current, found),)


def _shared(endpoint: Endpoint, number: int, weight: int) -> Endpoint:
    """Give `number` that share and the serving revision the rest; members without a share stay, to end their work."""
    others = [m for m in endpoint.members if m.revision not in (number, endpoint.serving)]
    members = [replace(member, weight=0) for member in others]
    if endpoint.serving:
        members.append(Member(endpoint.serving, WHOLE - weight))
    members.append(Member(number, weight))
    return touch(replace(endpoint, members=tuple(sorted(members, key=lambda m: m.revision))))


def _moved(endpoint: Endpoint, number: int, old: RevisionState, new: RevisionState) -> Endpoint:
    found = endpoint.revision(number)
    if found is None or found.state is not old or found.reason:
        return endpoint
    return _edited(endpoint, [number], state=new)


def _edited(endpoint: Endpoint, numbers: Iterable[int], **changes: object) -> Endpoint:
    chosen = set(numbers)
    edited = (replace(r, **changes) if r.number in chosen else r for r in endpoint.revisions)  # type: ignore[arg-type]
    return replace(endpoint, revisions=tuple(edited))


def _check_stays(endpoint: Endpoint) -> None:
    if endpoint.deleting:
        raise FailedPrecondition(f"{endpoint.name} is being deleted: try again in a moment.")
