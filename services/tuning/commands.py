"""What can be done to studies and trials. Each command is durable when it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from google.protobuf import json_format

from penstock.errors import AlreadyExists, FieldViolation, PenstockError
from penstock.store import Cause, Stored, current_cause, now
from services.tuning import model
from services.tuning.model import Study, Told, Trial
from services.tuning.repository import Repository, news
from services.tuning.space import check_study, lowest
from services.tuning.trainings import Trainings


@dataclass(frozen=True)
class Commands:
    """The use cases. `wake` tells the reconciler that there is something to do for a study."""

    repository: Repository
    trainings: Trainings
    wake: Callable[[str], None]

    async def create_study(self, study: Study, request_id: str, *, named: bool) -> Stored[Study]:
        """Start a study; `named` says that its id was chosen, and does not follow from the request.

        The same request again gives the study that it made: for 24 hours if that is named, else however late.

        Raises InvalidArgument, NotFound (dataset version, code), AlreadyExists, with the fields.
        """
        known = (await self.repository.studies.get_many([study.name])).get(study.name)
        if known is None:
            study = await self._checked(study)
        cause = current_cause.get() or Cause()
        first, facts = model.begin(replace(study, correlation_id=cause.correlation_id, traceparent=cause.traceparent))
        try:
            stored = await self.repository.studies.create(study.name, first, news(facts), request_id=request_id or None)
        except AlreadyExists:
            if named or not request_id:
                raise
            stored = await self.repository.studies.get(study.name)  # its id is a hash of this very request
        self.wake(study.name)
        return stored

    async def stop_study(self, name: str) -> Stored[Study]:
        """Ask a study to stop. Raises NotFound, FailedPrecondition (has ended)."""
        stored = await self.repository.change_study(name, model.stop)
        self.wake(name)
        return stored

    async def tell(self, trial: str, told: Told) -> Trial:
        """Say what came of a trial; only the first time counts. Raises NotFound."""
        stored = await self.repository.trials.change(trial, lambda value: model.tell(value, told, now()))
        self.wake(stored.value.study)
        return stored.value

    async def _checked(self, study: Study) -> Study:
        """The study, its code pinned. Raises what is wrong with it, or with the run of any of its trials."""
        check_study(study)
        try:
            run = await self.trainings.check(study, lowest(study.space))
        except PenstockError as error:
            violations = [FieldViolation(_study_field(v.field), v.description) for v in error.violations]
            raise type(error)(error.message, violations=violations) from error
        if not run.code.git.commit:
            return study
        return replace(study, template={**study.template, "code": json_format.MessageToDict(run.code)})


def _study_field(field: str) -> str:
    return "study." + field.removeprefix("run.") if field.startswith("run.") else field
