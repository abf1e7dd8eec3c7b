"""The evaluations in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from penstock.store import Aggregates, Database, Page, Span, Stored
from services.evaluation.jobs import name_of
from services.evaluation.model import Evaluation, State

# A range with a lower end finds what has the field; ordering by it alone would read everything that has it not.
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def subject(model_version: str, dataset_version: str) -> str:
    """What is evaluated on what, as one value."""
    return f"{model_version} on {dataset_version}"


class Repository:
    """All collections of this service."""

    def __init__(self, database: Database) -> None:
        self.evaluations = Aggregates(
            database,
            "evaluations",
            Evaluation,
            indexes={
                "project": lambda e: e.project,
                "model_version": lambda e: e.model_version,
                # Only evaluations under way and successful ones are looked for by these.
                "active": lambda e: None if e.state.final else e.create_time,
                "succeeded": lambda e: (
                    subject(e.model_version, e.dataset_version) if e.state is State.SUCCEEDED else None
                ),
                "create_time": lambda e: e.create_time,
            },
        )

    async def prepare(self) -> None:
        """Make the indexes."""
        await self.evaluations.prepare()

    async def unfinished(self) -> list[Stored[Evaluation]]:
        """Evaluations under way, oldest first."""
        return list(await self.evaluations.find(span=Span("active", gte=_BEGINNING)))

    async def wanted(self, jobs: Sequence[str]) -> set[str]:
        """Those of some jobs whose evaluation still waits for a result."""
        found = await self.evaluations.get_many([name_of(job) for job in jobs])
        waiting = {s.id for s in found.values() if not s.value.state.final and s.value.result is None}
        return {job for job in jobs if name_of(job) in waiting}

    async def done(self, model_version: str, dataset_version: str) -> Stored[Evaluation] | None:
        """A successful evaluation of that model on that data, if there is one."""
        page = await self.evaluations.find(eq={"succeeded": subject(model_version, dataset_version)}, limit=1)
        return next(iter(page), None)

    async def page(self, project: str, model_version: str, limit: int, after: str | None) -> Page[Stored[Evaluation]]:
        """Evaluations of a project, newest first; of one model version if given."""
        which = {"model_version": model_version} if model_version else {"project": project}
        return await self.evaluations.find(eq=which, order_by="create_time", descending=True, limit=limit, after=after)
