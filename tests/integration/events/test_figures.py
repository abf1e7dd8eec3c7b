"""What operators see of events: how late they are published, and what consumers make of them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from penstock.events import Bus, Consumer, Event
from penstock.events.figures import EventFigures
from penstock.store import Database
from tests.integration.events.world import Run, new_project, queued, relay_of, running, runs_in, step, until


async def test_published_applied_failed_and_dead_events_are_counted(bus: Bus, database: Database) -> None:
    registry, project = CollectorRegistry(), new_project()
    before, bus.figures = bus.figures, EventFigures("training", registry)
    EventFigures("dataset", registry)  # services of one process share the registry
    seen: list[Event] = []

    async def handle(event: Event) -> None:
        if event.project != project:
            return
        seen.append(event)
        if event.sequence == 2:
            raise ValueError("never")

    def figure(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, {"service": "training", **labels}) or 0.0

    def outcome(kind: str) -> float:
        return figure("penstock_events_handled_total", consumer=project, outcome=kind)

    runs, name = await runs_in(database), f"projects/{project}/runs/a"
    consumer = Consumer(bus, database, project, ["training.run"], handle, effects=False, retry_delays=(0.01,))
    try:
        async with running(consumer.run(), relay_of(bus, database, runs).run()):
            await runs.create(name, Run(project), [queued(name)])
            await until(lambda: len(seen) == 1)
            await step(runs, name)
            await until(lambda: outcome("dead") == 1)
    finally:
        bus.figures = before
    assert (outcome("applied"), outcome("failed")) == (1, 4)
    assert figure("penstock_events_publish_delay_seconds_count") == 2
    assert figure("penstock_events_published_total", type="training.run.queued") == 1
    assert 0 < figure("penstock_events_publish_delay_seconds_sum") < 60
    assert registry.get_sample_value("penstock_events_held", {"service": "training", "consumer": project}) == 0
