"""The states of revisions, the traffic that is wanted, and what the edge was seen to do: in every order."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import Message

from penstock.errors import FailedPrecondition
from services.serving import transitions
from services.serving.model import KEPT, Endpoint, Member, Revision, RevisionState

NAME = "projects/vision/endpoints/scale"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
S = RevisionState


def asked(label: str = "a", *steps: int) -> Revision:
    """A revision to be deployed."""
    version = f"projects/vision/models/m/versions/{ord(label) - 96}"
    return Revision(0, version, f"sha256:{label}", "mo", NOW, steps=steps or (100,), request=f"request-{label}")


def fresh() -> Endpoint:
    return transitions.new_endpoint(NAME, NOW, 0)


def observed(endpoint: Endpoint, seen: list[Message] | None = None) -> Endpoint:
    """The edge does what is wanted."""
    outcome = transitions.observe(endpoint, endpoint.generation, NOW)
    if not isinstance(outcome, tuple):
        return outcome
    if seen is not None:
        seen.extend(outcome[1])
    return outcome[0]


def entered(endpoint: Endpoint, number: int) -> Endpoint:
    """Loaded, compared, and given its first share."""
    return transitions.enter(transitions.started(transitions.begin(endpoint, number), number), number)


def served(endpoint: Endpoint, label: str) -> Endpoint:
    """A revision that has come all the way with one step, and the one before cleaned up."""
    endpoint = transitions.deploy(endpoint, asked(label))
    old = endpoint.serving
    endpoint = observed(entered(endpoint, endpoint.last))
    return cleaned(endpoint, old) if old else endpoint


def cleaned(endpoint: Endpoint, number: int) -> Endpoint:
    return transitions.cleaned(observed(transitions.drop(endpoint, number)), number, NOW)


def after(outcome: Any) -> Endpoint:
    changed: Endpoint = outcome[0] if isinstance(outcome, tuple) else outcome
    return changed


def facts(outcome: Any) -> list[str]:
    return [type(fact).__name__ for fact in outcome[1]] if isinstance(outcome, tuple) else []


def test_a_first_revision_takes_everything_in_one_step() -> None:
    endpoint = entered(transitions.deploy(fresh(), asked("a", 10, 50, 100)), 1)
    assert endpoint.members == (Member(1, 100),)
    seen: list[Message] = []
    endpoint = observed(endpoint, seen)
    assert (endpoint.serving, endpoint.previous, endpoint.state) == (1, 0, "READY")
    assert [type(fact).__name__ for fact in seen] == ["TrafficChanged", "RevisionReady"]


def test_a_shift_goes_up_step_by_step_and_serves_only_when_the_edge_was_seen_to() -> None:
    endpoint = served(fresh(), "a")
    endpoint = entered(transitions.deploy(endpoint, asked("b", 10, 100)), 2)
    assert endpoint.members == (Member(1, 90), Member(2, 10)) and endpoint.weight(2) == 0
    endpoint = observed(endpoint)
    assert (endpoint.weight(1), endpoint.weight(2), endpoint.state) == (90, 10, "SHIFTING")
    endpoint = transitions.advance(endpoint, 2, 0)
    assert endpoint.members == (Member(1, 0), Member(2, 100))
    second = endpoint.revision(2)
    assert second and (second.state, endpoint.serving) == (S.SHIFTING, 1)
    seen: list[Any] = []
    endpoint = observed(endpoint, seen)
    ready = seen[1]
    assert ready.revision == f"{NAME}/revisions/2" and ready.previous == f"{NAME}/revisions/1"
    assert endpoint.serving == 2 and endpoint.previous == 1
    first = endpoint.revision(1)
    assert first and first.state is S.DRAINING
    endpoint = cleaned(endpoint, 1)
    first = endpoint.revision(1)
    assert first and first.state is S.REMOVED and endpoint.members == (Member(2, 100),)


def test_an_observation_that_is_late_changes_nothing() -> None:
    endpoint = entered(transitions.deploy(fresh(), asked()), 1)
    assert transitions.observe(endpoint, endpoint.generation - 1, NOW) is endpoint
    done = observed(endpoint)
    assert transitions.observe(done, done.generation, NOW) is done


def test_every_transition_that_is_done_again_changes_nothing() -> None:
    endpoint = served(fresh(), "a")
    endpoint = entered(transitions.deploy(endpoint, asked("b", 10, 100)), 2)
    endpoint = transitions.advance(observed(endpoint), 2, 0)
    for again in (
        transitions.deploy(endpoint, asked("b", 10, 100)),
        transitions.begin(endpoint, 2),
        transitions.started(endpoint, 2),
        transitions.enter(endpoint, 2),
        transitions.advance(endpoint, 2, 0),
        transitions.resume(endpoint, 1),
        transitions.drop(endpoint, 2),
    ):
        assert again is endpoint


def test_a_revision_that_never_had_traffic_fails_at_once() -> None:
    endpoint = transitions.begin(transitions.deploy(served(fresh(), "a"), asked("b")), 2)
    outcome = transitions.withdraw(endpoint, 2, "It does not load.", NOW)
    failed = after(outcome)
    assert facts(outcome) == ["RevisionFailed"]
    assert failed.generation == endpoint.generation and failed.members == (Member(1, 100),)
    second = failed.revision(2)
    assert second and (second.state, second.reason) == (S.FAILED, "It does not load.")
    assert transitions.withdraw(failed, 2, "again", NOW) is failed


def test_a_revision_with_traffic_fails_when_the_edge_was_seen_to_take_it_away() -> None:
    endpoint = observed(entered(transitions.deploy(served(fresh(), "a"), asked("b", 10, 100)), 2))
    endpoint = after(transitions.withdraw(endpoint, 2, "5xx", NOW))
    assert endpoint.members == (Member(1, 100), Member(2, 0))
    second = endpoint.revision(2)
    assert second and second.state is S.SHIFTING
    assert transitions.advance(endpoint, 2, 0) is endpoint
    seen: list[Message] = []
    endpoint = observed(endpoint, seen)
    assert [type(fact).__name__ for fact in seen] == ["TrafficChanged", "RevisionFailed"]
    second = endpoint.revision(2)
    assert second and (second.state, second.reason, endpoint.serving) == (S.FAILED, "5xx", 1)
    endpoint = cleaned(endpoint, 2)
    assert endpoint.members == (Member(1, 100),)
    second = endpoint.revision(2)
    assert second and second.state is S.FAILED and second.clean


def test_a_later_deploy_waits_for_its_turn() -> None:
    endpoint = transitions.deploy(transitions.deploy(served(fresh(), "a"), asked("b")), asked("c"))
    assert endpoint.candidate and endpoint.candidate.number == 2
    endpoint = observed(entered(endpoint, 2))
    assert endpoint.candidate and endpoint.candidate.number == 3 and endpoint.serving == 2


def test_a_suspended_revision_keeps_its_share_but_does_not_become_the_one_that_serves() -> None:
    endpoint = entered(transitions.deploy(served(fresh(), "a"), asked("b")), 2)
    endpoint = observed(transitions.suspend(endpoint, 2))
    assert endpoint.serving == 1
    seen: list[Message] = []
    endpoint = observed(transitions.resume(endpoint, 2), seen)
    assert endpoint.serving == 2 and endpoint.suspended == ()
    assert transitions.suspend(endpoint, 1) is endpoint  # it has no traffic


def test_the_edge_gives_what_suspended_revisions_had_to_the_others() -> None:
    endpoint = transitions.suspend(served(fresh(), "a"), 1)
    assert endpoint.shares == (Member(1, 0),)  # there is nobody else
    endpoint = entered(transitions.deploy(served(fresh(), "a"), asked("b", 10, 100)), 2)
    assert transitions.suspend(endpoint, 2).shares == (Member(1, 90), Member(2, 0))
    assert transitions.suspend(endpoint, 1).shares == (Member(1, 0), Member(2, 10))
    endpoint = transitions.advance(observed(endpoint), 2, 0)
    assert endpoint.shares == (Member(1, 0), Member(2, 100))
    assert transitions.suspend(endpoint, 2).shares == (Member(1, 100), Member(2, 0))
    withdrawn = after(transitions.withdraw(endpoint, 2, "5xx", NOW))
    assert transitions.suspend(withdrawn, 1).shares == (Member(1, 0), Member(2, 0))


def test_a_restart_of_a_model_server_is_no_change_of_the_traffic() -> None:
    seen: list[Message] = []
    endpoint = observed(transitions.suspend(served(fresh(), "a"), 1), seen)
    endpoint = observed(transitions.resume(endpoint, 1), seen)
    assert seen == [] and endpoint.observed == endpoint.generation == 3


def test_a_rollback_deploys_what_was_served_before_and_another_one_comes_back() -> None:
    endpoint = served(served(fresh(), "a"), "b")
    for expected, label in (("a", "x"), ("b", "y"), ("a", "z")):
        endpoint = transitions.rollback(endpoint, replace(asked(label), model_version="", artifact=""))
        endpoint = observed(entered(endpoint, endpoint.last))
        endpoint = cleaned(endpoint, endpoint.previous)
        now_serving = endpoint.revision(endpoint.serving)
        assert now_serving and now_serving.artifact == f"sha256:{expected}"


def test_a_rollback_without_anything_before_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="nothing to go back to"):
        transitions.rollback(served(fresh(), "a"), asked("x"))
    with pytest.raises(FailedPrecondition, match="nothing to go back to"):
        transitions.rollback(transitions.deploy(fresh(), asked("a")), asked("x"))


def test_a_rollback_during_a_shift_ends_it_and_what_waits() -> None:
    endpoint = observed(entered(transitions.deploy(served(fresh(), "a"), asked("b", 10, 100)), 2))
    endpoint = transitions.rollback(transitions.deploy(endpoint, asked("c")), asked("x"))
    assert endpoint.last == 3
    assert [bool(revision.reason) for revision in endpoint.revisions] == [False, True, True]


def test_a_deletion_fails_what_comes_and_takes_nothing_new() -> None:
    endpoint = transitions.deploy(served(fresh(), "a"), asked("b"))
    outcome = transitions.delete(endpoint, NOW)
    assert facts(outcome) == ["RevisionFailed"]
    assert after(outcome).state == "DELETING"
    with pytest.raises(FailedPrecondition, match="being deleted"):
        transitions.deploy(after(outcome), asked("c"))
    with pytest.raises(FailedPrecondition, match="being deleted"):
        transitions.rollback(after(outcome), asked("c"))


def test_the_document_keeps_twenty_revisions_and_never_loses_what_a_rollback_needs() -> None:
    endpoint = served(served(fresh(), "a"), "b")
    for number in range(3, 40):
        endpoint = transitions.deploy(endpoint, replace(asked("c"), request=f"r{number}"))
        endpoint = transitions.cleaned(after(transitions.withdraw(endpoint, number, "no", NOW)), number, NOW)
        endpoint = transitions.without(endpoint, transitions.old_ones(endpoint))
    assert len(endpoint.revisions) == KEPT
    assert endpoint.revision(1) and endpoint.revision(2)
    assert transitions.rollback(endpoint, asked("x")).revisions[-1].artifact == "sha256:a"


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_traffic_only_goes_to_revisions_that_were_entered(seed: int) -> None:
    """Random orders of all transitions: shares add up, what serves has them, numbers are never given twice."""
    chance = random.Random(seed)
    endpoint, entered_ones = fresh(), set()
    for round_ in range(300):
        number = chance.randint(1, max(1, endpoint.last))
        move = chance.randrange(11)
        before = endpoint
        if move == 0:
            steps = chance.choice([(100,), (10, 100), (10, 50, 100)])
            endpoint = transitions.deploy(endpoint, replace(asked("a", *steps), request=f"r{round_}"))
        elif move == 1 and endpoint.candidate:
            endpoint = transitions.begin(endpoint, endpoint.candidate.number)
        elif move == 2:
            endpoint = transitions.started(endpoint, number)
        elif move == 3:
            endpoint = transitions.enter(endpoint, number)
            entered_ones |= {number} if endpoint is not before else set()
        elif move == 4 and endpoint.observed == endpoint.generation and endpoint.wanted_weight(number) < 100:
            found = endpoint.revision(number)
            endpoint = transitions.advance(endpoint, number, found.step if found else 0)
        elif move == 5:
            endpoint = after(transitions.withdraw(endpoint, number, "no", NOW))
        elif move == 6:
            endpoint = transitions.suspend(endpoint, number)
        elif move == 7:
            endpoint = transitions.resume(endpoint, number)
        elif move == 8:
            endpoint = transitions.drop(endpoint, number) if endpoint.observed == endpoint.generation else endpoint
        elif move == 9 and chance.random() < 0.2 and endpoint.previous:
            endpoint = transitions.rollback(endpoint, replace(asked("x"), request=f"r{round_}"))
        else:
            endpoint = observed(endpoint)
        shares = {member.revision: member.weight for member in endpoint.members}
        assert set(shares) <= entered_ones and sum(shares.values()) in (0, 100)
        assert len({revision.number for revision in endpoint.revisions}) == len(endpoint.revisions)
        if endpoint.serving:
            current = endpoint.revision(endpoint.serving)
            assert current and current.state is S.SERVING and endpoint.serving in shares
            assert sum(revision.state is S.SERVING for revision in endpoint.revisions) == 1
        for revision in endpoint.revisions:
            if revision.state in (S.FAILED, S.DRAINING, S.REMOVED):
                assert shares.get(revision.number, 0) == 0
