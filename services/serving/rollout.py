"""One step after the other from what an endpoint is to what is wanted of it.

Each step looks at the document and at what is there, does one thing that may be done again, and writes that it was
done: so any instance of the service goes on where another died.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from penstock.algorithms.model_format import ModelCard
from penstock.edge import Position
from penstock.errors import PenstockError, Unavailable
from penstock.store import now
from services.serving import transitions
from services.serving.instances import Instances, Key
from services.serving.judge import Window
from services.serving.model import Endpoint, Member, Revision, RevisionState, Transition
from services.serving.repository import Repository
from services.serving.traffic import Address, Traffic, key_of
from services.serving.verification import Verifier

AT_ONCE = 0.0
LOOK_SECONDS = 0.2  # between two looks at what a revision answers; Envoy writes them down that late
DRAIN_LOOK_SECONDS = 0.05
SETTLE_SECONDS = 0.3  # a worker of Envoy may send a request by the old weights for so long
DRAIN_SECONDS = 30.0
PATIENCE_SECONDS = 60.0  # with an edge or a Triton that does not answer, before a revision fails for it
DEATHS = 3  # of a revision that does not serve yet
BACKOFF_SECONDS = (0.5, 30.0)

log = structlog.get_logger(__name__)


@dataclass
class Hold:
    """A step that is being judged. The Envoy that counts was started at `began` at the latest."""

    step: int
    window: Window
    position: Position
    began: float
    until: float


@dataclass
class Notes:
    """What is remembered of one revision until it is removed. May be lost: then patience and holds begin again."""

    trouble: float | None = None  # since when something that it needs has not answered
    deaths: int = 0
    again: float = 0.0  # when to try to revive it
    wait: float = BACKOFF_SECONDS[0]  # after that
    hold: Hold | None = None


class Rollout:
    """The steps. `clean` starts a removal beside it."""

    def __init__(
        self,
        repository: Repository,
        instances: Instances,
        traffic: Traffic,
        verifier: Verifier,
        clean: Callable[[str, int], None],
    ) -> None:
        self._repository = repository
        self._instances = instances
        self._traffic = traffic
        self._verifier = verifier
        self._clean = clean
        self._checked: set[str] = set()
        self._notes: defaultdict[Key, Notes] = defaultdict(Notes)

    async def step(self, endpoint: Endpoint) -> float | None:
        """Do the next thing. Returns in how many seconds to look again, None if there is nothing left to do.

        Raises Unavailable where something that is needed does not answer now.
        """
        if await self._suspend(endpoint) or await self._apply(endpoint):
            return AT_ONCE
        waits = []
        for part in (self._revive, self._candidate, self._retire, self._archive):
            wait = await part(endpoint)
            if wait == AT_ONCE:
                return AT_ONCE
            waits.append(wait)
        return min((wait for wait in waits if wait is not None), default=None)

    def forget(self, name: str) -> None:
        """An endpoint is gone."""
        self._checked.discard(name)
        for key in [key for key in self._notes if key[0] == name]:
            del self._notes[key]

    async def _suspend(self, endpoint: Endpoint) -> bool:
        """Take the traffic from revisions whose process is gone."""
        dead = [
            member.revision
            for member in endpoint.members
            if member.weight
            and member.revision not in endpoint.suspended
            and not self._instances.alive(endpoint.name, member.revision)
        ]
        for number in dead:
            log.warning("a model server is gone", endpoint=endpoint.name, revision=number)
            self._notes[endpoint.name, number].deaths += 1
            await self._change(endpoint, partial(transitions.suspend, number=number))
        return bool(dead)

    async def _apply(self, endpoint: Endpoint) -> bool:
        """Make the edge divide the requests as wanted, and write down that it does."""
        addresses = {m.revision: await self._address(endpoint, m) for m in endpoint.members}
        if endpoint.observed == endpoint.generation:
            if endpoint.name in self._checked:
                return False
            if self._traffic.is_written(endpoint, addresses):
                self._checked.add(endpoint.name)
                return False
        written = self._traffic.written_generation(endpoint.name)
        if endpoint.observed == endpoint.generation or written > endpoint.generation:
            await self._change(endpoint, lambda current: transitions.touch(current, written))
            return True
        try:
            await self._traffic.apply(endpoint, addresses)
        except Unavailable:
            if not await self._traffic.is_up():
                await self._revive(endpoint)  # while no edge runs, nobody asks what did not answer its examples yet
            raise
        self._checked.add(endpoint.name)
        moment = now()
        await self._change(endpoint, lambda current: transitions.observe(current, endpoint.generation, moment))
        return True

    async def _address(self, endpoint: Endpoint, member: Member) -> Address:
        found = self._instances.address(endpoint.name, member.revision)
        if found is None:  # its record was lost, and with it the process
            await self._start(endpoint, member.revision)
            found = self._instances.address(endpoint.name, member.revision)
        assert found is not None
        return found

    async def _revive(self, endpoint: Endpoint) -> float | None:
        """Start what died again; it gets its traffic back when it answers its examples."""
        waits = []
        for number in endpoint.suspended:
            if not endpoint.wanted_weight(number):
                continue
            notes = self._notes[endpoint.name, number]
            if notes.again <= time.monotonic():
                error = await self._try_to_revive(endpoint, number)
                if error is None:
                    notes.again, notes.wait = 0.0, BACKOFF_SECONDS[0]
                    return AT_ONCE
                log.warning("a model server did not come back", endpoint=endpoint.name, revision=number, error=error)
                notes.deaths += 1
                notes.again, notes.wait = time.monotonic() + notes.wait, min(notes.wait * 2, BACKOFF_SECONDS[1])
            waits.append(notes.again - time.monotonic())
        return min(waits, default=None)

    async def _try_to_revive(self, endpoint: Endpoint, number: int) -> str | None:
        try:
            card = await self._start(endpoint, number)
            address = self._instances.address(endpoint.name, number)
            assert address is not None
            await self._verifier.compare_directly(endpoint.name, address[0], card)
            await self._traffic.write_pin(endpoint.name, number, address)
        except PenstockError as error:
            return error.message
        await self._change(endpoint, lambda current: transitions.resume(current, number))
        return None

    async def _candidate(self, endpoint: Endpoint) -> float | None:
        """Bring the revision whose turn it is one step further."""
        revision = endpoint.candidate
        if revision is None:
            return None
        notes = self._notes[endpoint.name, revision.number]
        if not revision.reason and notes.deaths >= DEATHS:
            return await self._give_up(endpoint, revision, f"Its model server died or failed to start {DEATHS} times.")
        if revision.reason:
            return await self._give_up(endpoint, revision, revision.reason)
        if revision.state is RevisionState.SHIFTING:
            return await self._judge(endpoint, revision)
        if revision.state is RevisionState.PENDING:
            await self._change(endpoint, lambda current: transitions.begin(current, revision.number))
            return AT_ONCE
        try:
            await (self._load if revision.state is RevisionState.STARTING else self._verify)(endpoint, revision)
        except Unavailable as error:
            notes.trouble = notes.trouble or time.monotonic()
            if time.monotonic() < notes.trouble + PATIENCE_SECONDS:
                raise
            return await self._give_up(endpoint, revision, error.message)
        except PenstockError as error:
            return await self._give_up(endpoint, revision, error.message)
        notes.trouble = None
        return AT_ONCE

    async def _load(self, endpoint: Endpoint, revision: Revision) -> None:
        await self._start(endpoint, revision.number)
        await self._change(endpoint, lambda current: transitions.started(current, revision.number))

    async def _verify(self, endpoint: Endpoint, revision: Revision) -> None:
        name, number = endpoint.name, revision.number
        card = await self._start(endpoint, number)
        address = self._instances.address(name, number)
        assert address is not None
        await self._verifier.compare_directly(name, address[0], card)
        await self._traffic.pin(name, number, address)
        await self._verifier.compare_at_edge(name, number, card)
        await self._change(endpoint, lambda current: transitions.enter(current, number))

    async def _give_up(self, endpoint: Endpoint, revision: Revision, reason: str) -> float:
        log.warning("a revision is given up", endpoint=endpoint.name, revision=revision.number, reason=reason)
        moment = now()
        await self._change(endpoint, lambda current: transitions.withdraw(current, revision.number, reason, moment))
        return AT_ONCE

    async def _judge(self, endpoint: Endpoint, revision: Revision) -> float | None:
        """Hold a step while nothing speaks against the revision; then the next one."""
        if revision.number in endpoint.suspended:
            self._notes[endpoint.name, revision.number].hold = None  # the step is judged anew when it is back
            return None
        hold = await self._hold(endpoint, revision)
        hold.window.count(await self._traffic.attempts(endpoint.name, revision.number, endpoint.serving))
        records, hold.position = await self._traffic.answers(hold.position)
        hold.window.add(records)
        if reason := hold.window.verdict():
            return await self._give_up(endpoint, revision, reason)
        if hold.window.ejected:
            hold.until = time.monotonic() + revision.hold  # it shows what it can do when it is asked again
        left = hold.until - time.monotonic()
        if left > 0:
            return min(left, LOOK_SECONDS)
        await self._change(endpoint, lambda current: transitions.advance(current, revision.number, hold.step))
        self._notes[endpoint.name, revision.number].hold = None
        return AT_ONCE

    async def _hold(self, endpoint: Endpoint, revision: Revision) -> Hold:
        """The window of the current step; a new one if Envoy was restarted meanwhile."""
        notes = self._notes[endpoint.name, revision.number]
        earliest, began = await self._traffic.began()
        hold = notes.hold
        if hold is None or hold.step != revision.step or earliest > hold.began:
            begun = await self._traffic.attempts(endpoint.name, revision.number, endpoint.serving)
            window = Window(*key_of(endpoint.name), revision.number, endpoint.serving, begun)
            until = time.monotonic() + revision.hold
            hold = notes.hold = Hold(revision.step, window, self._traffic.log_end(), began, until)
        return hold

    async def _retire(self, endpoint: Endpoint) -> float | None:
        """Let revisions that are no longer wanted end their requests; then remove them."""
        waits = []
        for revision in endpoint.revisions:
            leaving = revision.state in (RevisionState.DRAINING, RevisionState.FAILED) and not revision.clean
            if not leaving:
                continue
            if all(member.revision != revision.number for member in endpoint.members):
                self._notes.pop((endpoint.name, revision.number), None)
                self._clean(endpoint.name, revision.number)
            elif await self._is_drained(endpoint, revision):
                await self._change(endpoint, partial(transitions.drop, number=revision.number))
                return AT_ONCE
            else:
                waits.append(DRAIN_LOOK_SECONDS)
        return min(waits, default=None)

    async def _is_drained(self, endpoint: Endpoint, revision: Revision) -> bool:
        since = (now() - revision.ended).total_seconds() if revision.ended else DRAIN_SECONDS
        if since < SETTLE_SECONDS:
            return False
        if since >= DRAIN_SECONDS:
            return True
        return await self._traffic.active(endpoint.name, revision.number) == 0

    async def _archive(self, endpoint: Endpoint) -> float | None:
        """Move what is old out of the document."""
        old = transitions.old_ones(endpoint)
        if not old:
            return None
        await self._repository.archive(endpoint.name, old)
        await self._change(endpoint, lambda current: transitions.without(current, old))
        return AT_ONCE

    async def _start(self, endpoint: Endpoint, number: int) -> ModelCard:
        revision = endpoint.revision(number)
        assert revision is not None
        return await self._instances.start(endpoint.name, number, revision.artifact)

    async def _change(self, endpoint: Endpoint, transition: Transition) -> None:
        await self._repository.change(endpoint.name, transition)
