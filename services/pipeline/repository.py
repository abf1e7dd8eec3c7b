"""The pipeline service's documents and the questions asked of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from penstock import names
from penstock.errors import NotFound
from penstock.store import Aggregates, Database, Document, Page, Rows, Span, Stored
from services.pipeline.ledger import Ledger
from services.pipeline.model import Pipeline, PipelineRun, Window

# A range with a lower end finds what has the field; ordering by it alone would read everything that has it not.
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_PORTION = 20


class Repository:
    """All collections of this service."""

    def __init__(self, database: Database) -> None:
        self.pipelines = Aggregates(
            database,
            "pipelines",
            Pipeline,
            indexes={"project": lambda p: p.project, "trigger": lambda p: f"{p.project}/{p.trigger.event}"},
        )
        self.runs = Aggregates(
            database,
            "runs",
            PipelineRun,
            indexes={
                "pipeline": lambda r: r.pipeline,
                "correlation": lambda r: f"{r.project}/{r.correlation_id}",
                "create_time": lambda r: r.create_time,
                # Only runs under way have it, so they are found without reading the others.
                "active": lambda r: None if r.state.final else r.create_time,
            },
        )
        self.windows = Aggregates(
            database,
            "windows",
            Window,
            indexes={
                "open": lambda w: w.pipeline if not w.run else None,
                "fire_at": lambda w: w.fire_at if not w.run else None,
                "unstarted": lambda w: w.fire_at if w.run and not w.started else None,
            },
            unique=("open",),
        )
        self.decisions = Rows(database, "decisions", indexes=("pipeline", "order"))
        self.ledger = Ledger(self.decisions)

    async def prepare(self) -> None:
        """Make the indexes."""
        for collection in (self.pipelines, self.runs, self.windows):
            await collection.prepare()
        await self.decisions.prepare()

    def with_outbox(self) -> Sequence[Aggregates[Any]]:
        """All aggregates with events, for the relay."""
        return (self.pipelines, self.runs)

    async def triggered_by(self, project: str, type: str) -> list[Stored[Pipeline]]:
        """Pipelines of a project that wait for a type."""
        return list(await self.pipelines.find(eq={"trigger": f"{project}/{type}"}))

    async def open_window(self, pipeline: str) -> Stored[Window] | None:
        """The one window of a pipeline that still gathers."""
        found = await self.windows.find(eq={"open": pipeline}, limit=1)
        return next(iter(found), None)

    async def gathering(self) -> list[Stored[Window]]:
        """Open windows with causes, the next to fire first."""
        return list(await self.windows.find(span=Span("fire_at", gte=_BEGINNING), limit=100))

    async def unstarted_windows(self) -> list[Stored[Window]]:
        """Windows that fired and whose run was not yet seen to exist."""
        return list(await self.windows.find(span=Span("unstarted", gte=_BEGINNING), limit=100))

    async def active_runs(self) -> list[Stored[PipelineRun]]:
        """Runs under way, oldest first."""
        return list(await self.runs.find(span=Span("active", gte=_BEGINNING)))

    async def runs_of_chain(self, project: str, correlation_id: str) -> AsyncIterator[PipelineRun]:
        """Runs that continue a chain of causes; read in portions, since few are needed of a chain with thousands."""
        chain, after = {"correlation": f"{project}/{correlation_id}"}, None
        while True:
            page = await self.runs.find(eq=chain, limit=_PORTION, after=after)
            for stored in page:
                yield stored.value
            after = page.next
            if after is None:
                return

    async def runs_page(self, pipeline: str, limit: int, after: str | None) -> Page[Stored[PipelineRun]]:
        """The runs of a pipeline, newest first."""
        return await self.runs.find(
            eq={"pipeline": pipeline}, order_by="create_time", descending=True, limit=limit, after=after
        )

    async def decision(self, name: names.ResourceName) -> Document:
        """What was decided about one event. Raises NotFound."""
        row = await self.decisions.get(f"{name.parent}|{name.id}")
        if row is None:
            raise NotFound(f"{name} does not exist.")
        return row

    async def decisions_page(self, pipeline: str, limit: int, after: str | None) -> Page[Document]:
        """What was decided about events, newest first."""
        return await self.decisions.find(
            eq={"pipeline": pipeline}, order_by="order", descending=True, limit=limit, after=after
        )
