"""What training keeps, and the questions it asks about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from penstock import names
from penstock.errors import AlreadyExists, InvalidArgument, NotFound
from penstock.events.envelope import NewEvent
from penstock.store import Aggregates, Database, Page, Rows, Span, Stored
from services.training.appends import Appends
from services.training.model import UNFINISHED, Run
from services.training.versions import Model, ModelVersion

V = TypeVar("V")
Point = tuple[str, int, float, float]  # name, step, value, seconds since 1970
MAX_BATCH = 1000


def news(facts: Iterable[Message]) -> list[NewEvent]:
    """The facts of a transition, as the store takes them."""
    return [NewEvent.of(fact) for fact in facts]


@dataclass(frozen=True)
class Batch:
    """One report of metrics, under the number that its reporter gave it."""

    run: str
    attempt: int
    number: int
    points: tuple[Point, ...]

    @property
    def id(self) -> str:
        """`<run>/<attempt>/<batch>`: the same report again is the same row."""
        return f"{_series(self.run, self.attempt)}{self.number:012d}"

    def row(self) -> dict[str, Any]:
        """The document: a list a field, which costs half of a document a point. NaN is kept as a text by the store."""
        names_, steps, values, times = zip(*self.points, strict=True) if self.points else ((), (), (), ())
        return {"_id": self.id, "at": self.id, "names": names_, "steps": steps, "values": values, "times": times}


class Repository:
    """Runs, their metrics, models and model versions, in the database of this service."""

    def __init__(self, database: Database) -> None:
        self.runs = Aggregates(
            database,
            "runs",
            Run,
            indexes={
                "project": lambda run: run.project,
                "state": lambda run: run.state,
                "dataset_version": lambda run: run.dataset_version,
                "created": lambda run: run.created,
            },
        )
        self.models = Aggregates(
            database,
            "models",
            Model,
            indexes={"project": lambda model: model.project, "name": lambda model: model.name},
        )
        self.versions = Aggregates(
            database,
            "model_versions",
            ModelVersion,
            indexes={
                "model": lambda version: version.model,
                "run": lambda version: version.run,
                "number": lambda version: version.number,
            },
        )
        self._metrics = Rows(database, "metrics", indexes=("at",))
        self._appends = Appends(self._metrics)

    async def prepare(self) -> None:
        """Make the indexes."""
        for kept in (self.runs, self.models, self.versions, self._metrics):
            await kept.prepare()

    async def change_run(
        self, name: str, transition: Callable[[Run], Run | tuple[Run, tuple[Message, ...]]]
    ) -> Stored[Run]:
        """Apply a transition of the model, its facts in the same write. Raises what the transition raises, NotFound."""

        def apply(run: Run) -> Run | tuple[Run, list[NewEvent]]:
            outcome = transition(run)
            return (outcome[0], news(outcome[1])) if isinstance(outcome, tuple) else outcome

        return await self.runs.change(name, apply)

    async def unfinished(self) -> list[Stored[Run]]:
        """All runs that are not final, oldest first."""
        return (await self.runs.find(any_of={"state": UNFINISHED}, order_by="created")).items

    async def list_runs(
        self, project: str, state: str, dataset_version: str, limit: int, after: str | None
    ) -> Page[Stored[Run]]:
        """A page of a project's runs, newest first; an empty `state` or `dataset_version` means any."""
        asked = {"project": project, "state": state, "dataset_version": dataset_version}
        eq = {field: value for field, value in asked.items() if value}
        return await self.runs.find(eq=eq, order_by="created", descending=True, limit=limit, after=after)

    async def list_models(self, project: str, limit: int, after: str | None) -> Page[Stored[Model]]:
        """A page of a project's models, by name."""
        return await self.models.find(eq={"project": project}, order_by="name", limit=limit, after=after)

    async def list_versions(self, model: str, limit: int, after: str | None) -> Page[Stored[ModelVersion]]:
        """A page of a model's versions, newest first."""
        return await self.versions.find(
            eq={"model": model}, order_by="number", descending=True, limit=limit, after=after
        )

    async def model(self, name: str) -> Stored[Model] | None:
        """A model, or None."""
        try:
            return await self.models.get(name)
        except NotFound:
            return None

    async def version_of_run(self, model: str, run: str) -> ModelVersion | None:
        """The version of that model which the run made, if there is one."""
        found = await self.versions.find(eq={"run": run}, where=lambda version: version.model == model)
        return found[0].value if found else None

    async def insert_version(self, version: ModelVersion) -> ModelVersion:
        """Take a version's number: the version itself, or the one that has the number already."""
        try:
            return (await self.versions.create(version.name, version)).value
        except AlreadyExists:
            return (await self.versions.get(version.name)).value

    async def append(self, batches: Iterable[Batch]) -> None:
        """Keep reports of metrics, durable on return; those that are there already stay as they are."""
        await self._appends.add([batch.row() for batch in batches])

    async def batches(self, run: str, attempt: int, after: str, limit: int) -> list[tuple[str, tuple[Point, ...]]]:
        """Some reports of an attempt in the order of their numbers, from the one with id `after` on (that included)."""
        series = _series(run, attempt)
        if after and not after.startswith(series):
            raise InvalidArgument("page_token is not one that this server made.", field="page_token")
        span = Span("at", gte=after or series, lt=series + "~")
        rows = await self._metrics.find(span=span, order_by="at", limit=limit)
        return [(row["_id"], _points(row)) for row in rows]


def _series(run: str, attempt: int) -> str:
    resource = names.parse(run, kind="run")
    return f"{resource.project}/{resource.id}/{attempt:04d}/"


def _points(row: dict[str, Any]) -> tuple[Point, ...]:
    columns = zip(row["names"], row["steps"], row["values"], row["times"], strict=True)
    return tuple((name, int(step), float(value), float(time)) for name, step, value, time in columns)
