"""An event from the commit of its cause to its handler, against nats-py publishing and subscribing alone."""

from __future__ import annotations

import asyncio

from bench.harness import Limit, Options, Pairs, Result, Row, interleave, milliseconds, per_second, percentile, say
from bench.our_events import OurEvents
from bench.platform import running_stack
from bench.raw_nats import FETCH, RawNats
from penstock.events import Bus, Event
from penstock.events.credentials import Permissions
from penstock.events.envelope import encode
from penstock.store import Database, now

RATE, LATENCY = Limit(">=", 0.8), Limit("<=", 2)


def measure(options: Options) -> Result:
    """Rates of publishing and handling a backlog; the way of single events."""
    with running_stack() as stack, asyncio.Runner() as runner:
        credentials = stack.credentials("bench", Permissions((">",), (">",)))
        database = Database.connect(stack.mongodb_uri, "penstock_bench")
        bus = runner.run(Bus.connect(stack.nats_url, credentials, "bench"))
        raw = runner.run(RawNats.connect(stack.nats_url, credentials, *_sample()))
        ours = OurEvents(database, bus)
        runner.run(ours.prepare())
        rows = [*_rates(runner, ours, raw, options), *_latencies(runner, ours, raw, options)]
        runner.run(raw.close())
        runner.run(bus.close())
        runner.run(database.close())
    return Result("events", rows, _settings())


def _rates(runner: asyncio.Runner, ours: OurEvents, raw: RawNats, options: Options) -> list[Row]:
    count, pairs = options.pick(500, 50), options.pick(9, 1)
    say(f"events: {count} at a time")
    trimmed: list[float] = []

    def publish() -> float:
        published, whole = runner.run(ours.publishing(count))
        trimmed.append(count / whole)
        return count / published

    publishing = interleave(publish, lambda: count / runner.run(raw.publishing(count)), pairs)
    handling = interleave(
        lambda: count / runner.run(ours.handling(count)), lambda: count / runner.run(raw.publishing(count)), pairs
    )
    consuming = [count / runner.run(raw.consuming(count)) for _ in range(options.pick(3, 1))]
    return [
        _rate("event published (from outbox to stream)", publishing, f"and trimmed: {per_second(trimmed[-pairs:])}"),
        _rate("event handled", handling, f"raw fetch({FETCH}) and ack: {per_second(consuming)}"),
    ]


def _rate(what: str, found: Pairs, note: str = "") -> Row:
    return Row(what, found.ratio(), RATE, ours=per_second(found.ours), peer=per_second(found.peer), note=note)


def _latencies(runner: asyncio.Runner, ours: OurEvents, raw: RawNats, options: Options) -> list[Row]:
    count, pairs = options.pick(200, 20), options.pick(7, 1)
    say("events: one at a time")
    from_call: list[float] = []

    def mine() -> float:
        returned, called = runner.run(ours.latencies(count))
        from_call.append(percentile(called, 0.5))
        return percentile(returned, 0.5)

    found = interleave(mine, lambda: percentile(runner.run(raw.latencies(count)), 0.5), pairs)
    note = f"from the command's call, its durable write included: {milliseconds(from_call[-pairs:])}"
    return [
        Row("event, end to end, p50", found.ratio(), LATENCY, ours=milliseconds(found.ours),
            peer=milliseconds(found.peer), note=note),
    ]  # fmt: skip


def _sample() -> tuple[dict[str, str], bytes]:
    """Headers and body of an event like those that are measured."""
    run = "projects/bench/runs/r1"
    return encode(
        Event(f"{run}@1", "training.run.started", "//penstock/training", run, 1, now(), {"run": run, "attempt": 1})
    )


def _settings() -> list[str]:
    return [
        "ours, published: Relay.once() over outboxes with an event each, while it keeps them in the events collection; "
        "then they are trimmed from the outboxes; handled: a new Consumer with an empty handler, its cursors durable",
        "ours, end to end: from the return of Aggregates.change (durable) to the handler, relay and consumer in one "
        "process; one event under way at a time",
        "peer: nats-py js.publish, awaited one after the other, same headers and body, a stream of its own on the same "
        "nats-server (sync_interval: always); end to end: from the call of publish to the callback of js.subscribe",
    ]
