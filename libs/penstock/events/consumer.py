"""Consumers: event in, command out. At-least-once delivery made into applied-once, in order per resource."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import api

from penstock.errors import InvalidArgument
from penstock.events import subjects
from penstock.events.bus import Bus
from penstock.events.cursors import Cursors
from penstock.events.dead_letters import DeadLetters, LetterState, Raw
from penstock.events.envelope import Event, decode
from penstock.events.lane import Delivery, FetchHistory, Handler, Lane, Work
from penstock.events.pull import ConsumerGone, Puller
from penstock.runtime.tasks import set_within
from penstock.store import Database, now

log = logging.getLogger(__name__)

ACK_WAIT = 5.0  # seconds until what a dead process had comes again; a message in work is announced more often
MAX_HELD = 1_000  # messages in work, or waiting for their turn
REFUSAL_DELAY = 0.5  # seconds until a message that is ahead comes again
_DECISIONS = 3.0  # seconds between looks at the dead letters
_BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)


class Consumer:
    """Takes all events of some kinds of aggregates (`training.run`; None: of all) and calls `handler` for each.

    Per resource in order, each once: a handler must be idempotent all the same, for it may die after its work (use
    ids derived from `event.id`, and compare-and-set with guards). It ignores types that it has no use for.
    An exception is a failure, after 5 of which the event is a dead letter; Unavailable is waited out.
    `effects=False` makes it a projection: it reads from the beginning, and listens to replays.
    `fetch_history(resource, after)` answers a resource's events from their owner, to fill gaps.
    """

    def __init__(
        self,
        bus: Bus,
        database: Database,
        name: str,
        kinds: Sequence[str] | None,
        handler: Handler,
        *,
        effects: bool = True,
        fetch_history: FetchHistory | None = None,
        patience: float = 2.0,
        retry_delays: Sequence[float] = (0.1, 0.5, 2.0, 5.0),
        ack_wait: float = ACK_WAIT,
    ) -> None:
        self.name = name
        self.dead_letters = DeadLetters(database)
        self._bus = bus
        self._filters = subjects.kind_filters(kinds)
        self._handler = handler
        self._effects = effects
        self._fetch_history = fetch_history
        self._patience = patience
        self._retry_delays = tuple(retry_delays)
        self._ack_wait = ack_wait
        self._cursors = Cursors(database, name)
        self._lanes: dict[str, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dispatching = asyncio.Lock()
        self._held: set[Delivery] = set()
        bus.figures.holding(name, lambda: len(self._held))
        self._released = asyncio.Event()
        self._wake = asyncio.Event()
        self._look_behind = True  # for what waits behind no letter: whoever released it did not come to the end

    async def run(self) -> None:
        """Consume for ever; survives the loss of NATS and of the database."""
        created = await _persist(self._cursors.created, self.name)
        work = self._work(created)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(subjects.STREAM, self._durable(created), work))
                if not self._effects:
                    group.create_task(self._pump(subjects.REPLAY_STREAM, self._replays(), work))
                group.create_task(self._announce())
                group.create_task(self._act(work))
        finally:
            await self._stop_lanes()

    async def reset(self, clear: Callable[[], Awaitable[None]]) -> None:
        """Forget how far it is, and `clear` what it made: a projection that a replay is about to rebuild.

        Nothing is applied meanwhile by this process, and no other may run this consumer at the time. If it fails or
        dies on the way, call it again; until then the projection is whole, or what it lacks is filled from the owners.
        """
        async with self._dispatching:  # no lane is opened
            await self._stop_lanes()
            # The cursors first: an empty projection with cursors would skip the replay.
            await self._cursors.reset()
            await clear()

    def wake(self) -> None:
        """Look at the dead letters now: something was decided."""
        self._wake.set()

    def _work(self, created: datetime) -> Work:
        return Work(
            self.name,
            self._handler,
            self._cursors,
            self.dead_letters,
            created if self._effects else None,
            self._fetch_history,
            self._patience,
            3 * self._ack_wait,
            self._retry_delays,
            self._settle,
            self._refuse,
            self._bus.figures,
        )

    def _durable(self, created: datetime) -> api.ConsumerConfig:
        start = api.DeliverPolicy.BY_START_TIME if self._effects else api.DeliverPolicy.ALL
        return api.ConsumerConfig(
            durable_name=self.name,
            filter_subjects=self._filters,
            deliver_policy=start,
            opt_start_time=created if self._effects else None,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_deliver=-1,
            max_ack_pending=2 * MAX_HELD,
        )

    def _replays(self) -> api.ConsumerConfig:
        return api.ConsumerConfig(
            durable_name=self.name,
            filter_subject=subjects.replay_filter(self.name),
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_deliver=-1,
            max_ack_pending=2 * MAX_HELD,
        )

    async def _pump(self, stream: str, config: api.ConsumerConfig, work: Work) -> None:
        """Messages of one stream into the lanes, for ever."""
        failures = 0
        while True:
            try:
                await self._bus.make_consumer(stream, config)
                async with Puller(self._bus, stream, self.name) as puller:
                    while True:
                        messages = await puller.next()
                        failures = 0
                        await self._dispatch(messages, work)
            except ConsumerGone:
                log.info("consumer %s of %s is made again", self.name, stream)
            except Exception as error:  # noqa: BLE001 (a consumer never ends)
                log.warning("consumer %s of %s failed, goes on: %s", self.name, stream, error or type(error).__name__)
            await asyncio.sleep(_BACK_OFF[min(failures, len(_BACK_OFF) - 1)])
            failures += 1

    async def _dispatch(self, messages: Sequence[Msg], work: Work) -> None:
        while len(self._held) >= MAX_HELD:
            self._released.clear()
            await self._released.wait()
        deliveries = [d for message in messages if (d := await self._decoded(message)) is not None]
        self._held.update(deliveries)
        try:
            await self._enter({d.event.subject for d in deliveries}, work, deliveries)
        except Exception:
            await self._refuse(deliveries)
            raise

    async def _decoded(self, message: Msg) -> Delivery | None:
        headers, body = message.headers or {}, message.data
        try:
            return Delivery(decode(headers, body), message)
        except InvalidArgument as error:
            raw = Raw(message.subject, headers, body)
            event = Event(message.subject, "unknown", "", "", 0, now())
            await self.dead_letters.put(self.name, event, LetterState.DEAD, str(error), 1, raw)
            await message.ack()
            return None

    async def _enter(
        self, resources: set[str], work: Work, deliveries: Sequence[Delivery] = (), *, decided: bool = False
    ) -> None:
        """Put messages (or the news of a decision) into the lanes of their resources."""
        async with self._dispatching:  # nobody else opens lanes, so a loaded cursor is not stale
            # A remembered cursor may be behind another process's: only a first delivery can trust it, and only until
            # it finds itself ahead (see Lane).
            again = {d.event.subject for d in deliveries if d.message.metadata.num_delivered > 1}
            cursors = {r: c for r in resources - again if (c := self._cursors.remembered(r)) and not decided}
            while missing := [r for r in resources if r not in self._lanes and r not in cursors]:
                cursors |= await self._cursors.load(missing)
            for resource in resources:
                if resource not in self._lanes:
                    self._open(Lane(work, cursors[resource]), resource)
                if decided:
                    self._lanes[resource].decide()
            for delivery in deliveries:
                self._lanes[delivery.event.subject].put(delivery)

    async def _stop_lanes(self) -> None:
        """End all that is at work; its messages come again. What it was writing may still be carried out."""
        lanes = list(self._tasks)
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        self._lanes.clear()
        self._held.clear()
        self._released.set()

    def _open(self, lane: Lane, resource: str) -> None:
        self._lanes[resource] = lane
        task = asyncio.create_task(self._drive(lane, resource))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drive(self, lane: Lane, resource: str) -> None:
        try:
            await lane.run()
        except Exception as error:  # noqa: BLE001 (the messages come again, and start from the stored cursor)
            log.warning("%s stopped at %s, will try again: %s", self.name, resource, error)
            self._look_behind = True
            del self._lanes[resource]  # before anything is awaited: what comes now opens a new lane
            await self._refuse(lane.left())
        else:
            del self._lanes[resource]

    async def _settle(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await _tell(delivery.message.ack)
        self._forget(deliveries)

    async def _refuse(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery in self._held:
                await _tell(lambda d=delivery: d.message.nak(delay=REFUSAL_DELAY))  # type: ignore[misc]
        self._forget(deliveries)

    def _forget(self, deliveries: Sequence[Delivery]) -> None:
        self._held.difference_update(deliveries)
        self._released.set()

    async def _announce(self) -> None:
        """Tell the server what is still in work, so that it is not delivered again."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            for delivery in list(self._held):
                await _tell(delivery.message.in_progress)

    async def _act(self, work: Work) -> None:
        """Act on what operators decide about dead letters."""
        self._look_behind = True
        while True:
            behind, self._look_behind = self._look_behind, False
            try:
                decided = {letter.resource for letter in await self.dead_letters.decided(self.name)}
                if behind:
                    decided |= await self.dead_letters.waiting(self.name)
                await self._enter(decided, work, decided=True)
            except Exception as error:  # noqa: BLE001 (the next look comes)
                self._look_behind = True
                log.warning("%s could not look at its dead letters: %s", self.name, error)
            self._wake.clear()
            await set_within(self._wake, _DECISIONS)


async def _tell(operation: Callable[[], Awaitable[None]]) -> None:
    """Acknowledge or refuse; if that is lost, the message comes again, which is no harm."""
    try:
        await operation()
    except NatsError as error:
        log.debug("an acknowledgement was lost: %s", error)


async def _persist(operation: Callable[[], Awaitable[datetime]], name: str) -> datetime:
    attempt = 0
    while True:
        try:
            return await operation()
        except Exception as error:  # noqa: BLE001 (a consumer starts when its database does)
            delay = _BACK_OFF[min(attempt, len(_BACK_OFF) - 1)]
            log.warning("consumer %s cannot start yet: %s", name, error)
            attempt += 1
            await asyncio.sleep(delay)
