"""What tuning keeps, and the questions it asks about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from google.protobuf.message import Message

from penstock import names
from penstock.errors import AlreadyExists
from penstock.events import NewEvent
from penstock.store import Aggregates, Database, Page, Span, Stored
from services.tuning.model import UNFINISHED, Study, Trial, TrialState


def news(facts: Iterable[Message]) -> list[NewEvent]:
    """The facts of a transition, as the store takes them."""
    return [NewEvent.of(fact) for fact in facts]


def trial_name(study: str, number: int) -> str:
    """The name of a study's trial."""
    parent = names.parse(study, kind="study")
    return names.build("trial", parent.project, parent.id, number)


class Repository:
    """Studies and trials, in the database of this service."""

    def __init__(self, database: Database) -> None:
        self.studies = Aggregates(
            database,
            "studies",
            Study,
            indexes={
                "project": lambda study: study.project,
                "state": lambda study: study.state,
                "created": lambda study: study.created,
            },
        )
        self.trials = Aggregates(
            database,
            "trials",
            Trial,
            indexes={
                "study": lambda trial: trial.study,
                "number": lambda trial: trial.number,
                # Only of trials that run, so that finding those costs what runs.
                "running": lambda trial: trial.study if trial.state is TrialState.RUNNING else None,
            },
        )

    async def prepare(self) -> None:
        """Make the indexes."""
        await self.studies.prepare()
        await self.trials.prepare()

    async def change_study(
        self, name: str, transition: Callable[[Study], Study | tuple[Study, tuple[Message, ...]]]
    ) -> Stored[Study]:
        """Apply a transition of the model, its facts in the same write. Raises what the transition raises, NotFound."""

        def apply(study: Study) -> Study | tuple[Study, list[NewEvent]]:
            outcome = transition(study)
            return (outcome[0], news(outcome[1])) if isinstance(outcome, tuple) else outcome

        return await self.studies.change(name, apply)

    async def unfinished(self) -> list[Stored[Study]]:
        """All studies that are not final, oldest first."""
        return (await self.studies.find(any_of={"state": UNFINISHED}, order_by="created")).items

    async def list_studies(self, project: str, limit: int, after: str | None) -> Page[Stored[Study]]:
        """A page of a project's studies, newest first."""
        return await self.studies.find(
            eq={"project": project}, order_by="created", descending=True, limit=limit, after=after
        )

    async def list_trials(self, study: str, limit: int, after: str | None) -> Page[Stored[Trial]]:
        """A page of a study's trials, by number."""
        return await self.trials.find(eq={"study": study}, order_by="number", limit=limit, after=after)

    async def running(self, study: str) -> list[Trial]:
        """The trials that run, by number."""
        found = await self.trials.find(eq={"running": study})
        return sorted((stored.value for stored in found), key=lambda trial: trial.number)

    async def after(self, study: str, number: int) -> list[Trial]:
        """The trials above a number, in order."""
        found = await self.trials.find(eq={"study": study}, span=Span("number", gt=number))
        return [stored.value for stored in found]

    async def numbered(self, study: str, numbers: Sequence[int]) -> list[Trial]:
        """The trials of these numbers, in that order."""
        wanted = [trial_name(study, number) for number in numbers]
        found = await self.trials.get_many(wanted)
        return [found[name].value for name in wanted]

    async def insert(self, trial: Trial) -> bool:
        """Take a trial's number; False if somebody has it already."""
        try:
            await self.trials.create(trial.name, trial)
        except AlreadyExists:
            return False
        return True
