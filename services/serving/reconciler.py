"""Drives every endpoint from what is written to what should be, one task an endpoint: its only writer.

It is woken by commands and by model servers that end, and looks at everything now and then all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from penstock.errors import Conflict, FailedPrecondition, NotFound, Unavailable
from penstock.rpc.watch import Signals
from penstock.runtime.tasks import KeyedTasks, set_within
from penstock.store import Cause, current_cause, now
from services.serving import transitions
from services.serving.model import Endpoint, RevisionState
from services.serving.rollout import Rollout

if TYPE_CHECKING:
    from services.serving.instances import Instances, Key
    from services.serving.repository import Repository
    from services.serving.traffic import Traffic
    from services.serving.verification import Verifier

RELIST_SECONDS = 5.0
STRAYS_SECONDS = 60.0
RETRY_SECONDS = 0.5
log = structlog.get_logger(__name__)


class Reconciler:
    """`run()` it as long as the service lives."""

    def __init__(
        self, repository: Repository, instances: Instances, traffic: Traffic, verifier: Verifier, signals: Signals
    ) -> None:
        self._repository = repository
        self._instances = instances
        self._traffic = traffic
        self._signals = signals
        self._rollout = Rollout(repository, instances, traffic, verifier, self._clean)
        self._running = False
        self._tasks = KeyedTasks()

    def wake(self, name: str) -> None:
        """Something about this endpoint has changed: look at it now."""
        self._signals.notify(name)
        if self._running:
            self._tasks.start(name, lambda: self._drive(name))

    async def run(self) -> None:
        """Reconcile forever."""
        self._running, strays = True, 0.0
        try:
            while True:
                for stored in await self._repository.all_endpoints():
                    self.wake(stored.value.name)
                if time.monotonic() > strays:
                    strays = time.monotonic() + STRAYS_SECONDS
                    await self._sweep()
                    with suppress(Unavailable, FailedPrecondition):  # no Envoy: then its log does not grow either
                        await self._traffic.keep_log_short()
                await asyncio.sleep(RELIST_SECONDS)
        finally:
            self._running = False
            await self._tasks.close()

    async def _drive(self, name: str) -> None:
        """Step until there is nothing to do."""
        with self._signals.listening(name) as changed:
            while True:
                changed.clear()
                wait = await self._guarded(name)
                if wait is None and not changed.is_set():
                    return
                if wait:
                    await set_within(changed, wait)

    async def _guarded(self, name: str) -> float | None:
        try:
            stored = await self._repository.endpoints.get(name)
            _set_cause(stored.value)
            if stored.value.deleting:
                return await self._dismantle(stored.value)
            wait = await self._rollout.step(stored.value)
            if wait == 0:
                self._signals.notify(name)
            else:
                self._watch_processes(stored.value)
            return wait
        except NotFound:
            return None
        except (Unavailable, Conflict) as error:
            log.warning("an endpoint must wait", endpoint=name, reason=error.message)
        except Exception:
            log.exception("a step of an endpoint failed", endpoint=name)
        return RETRY_SECONDS

    def _watch_processes(self, endpoint: Endpoint) -> None:
        """Be woken when a model server with traffic ends."""
        for member in endpoint.members:
            if member.weight and member.revision not in endpoint.suspended:
                key = ("exit", endpoint.name, member.revision)
                self._tasks.start(key, self._until_gone(endpoint.name, member.revision))

    def _until_gone(self, name: str, revision: int) -> Callable[[], Awaitable[None]]:
        async def wait() -> None:
            await self._instances.exited(name, revision)
            self.wake(name)

        return wait

    def _clean(self, name: str, revision: int) -> None:
        """Remove what is left of a revision, beside the endpoint's own task."""

        async def remove() -> None:
            try:
                await self._traffic.unpin(name, revision)
                await self._instances.remove(name, revision)
                moment = now()
                await self._repository.change(name, lambda current: transitions.cleaned(current, revision, moment))
            except NotFound:
                return
            except Exception:
                log.exception("a revision could not be removed", endpoint=name, revision=revision)
                await asyncio.sleep(RETRY_SECONDS)
            self.wake(name)

        self._tasks.start(("clean", name, revision), remove)

    async def _dismantle(self, endpoint: Endpoint) -> float | None:
        """End a deleted endpoint: first its traffic, then its model servers, then the document."""
        await self._traffic.remove(endpoint.name)
        live = [revision.number for revision in endpoint.revisions if not revision.clean]
        await asyncio.gather(*(self._instances.remove(endpoint.name, number) for number in live))
        stored = await self._repository.endpoints.get(endpoint.name)
        await self._repository.remove(stored, now())
        self._rollout.forget(endpoint.name)
        self._signals.notify(endpoint.name)
        return None

    async def _sweep(self) -> None:
        """Remove what belongs to no revision that lives: what is there is looked at before what should be."""
        found, routed = self._instances.found(), self._traffic.endpoints()
        endpoints = [stored.value for stored in await self._repository.all_endpoints()]
        live = {key for endpoint in endpoints for key in _live(endpoint)}
        for name, revision in sorted(found - live):
            log.warning("a stray model server is removed", endpoint=name, revision=revision)
            await self._instances.remove(name, revision)
        for name in sorted(routed - {endpoint.name for endpoint in endpoints}):
            log.warning("a stray endpoint is removed from the edge", endpoint=name)
            await self._traffic.forget(name)


def _live(endpoint: Endpoint) -> set[Key]:
    return {
        (endpoint.name, r.number) for r in endpoint.revisions if not r.clean and r.state is not RevisionState.PENDING
    }


def _set_cause(endpoint: Endpoint) -> None:
    """What happens now, happens because of the revision whose turn it is, or was last."""
    revision = endpoint.candidate or (endpoint.revisions[-1] if endpoint.revisions else None)
    if revision is not None:
        current_cause.set(Cause(revision.correlation_id, revision.causation_id, revision.traceparent))
