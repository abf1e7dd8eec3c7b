"""The use cases: start and cancel evaluations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from penstock import names
from penstock.errors import AlreadyExists, InvalidArgument
from penstock.store import Cause, Stored, current_cause, now
from services.evaluation.model import Evaluation
from services.evaluation.peers import Peers
from services.evaluation.repository import Repository
from services.evaluation.rules import check_rule, needs_baseline


@dataclass
class Evaluations:
    """What may be done with evaluations; `woken` makes the reconciler look."""

    repository: Repository
    peers: Peers
    woken: asyncio.Event

    async def create(
        self, project: str, id: str, *, model: str, dataset: str, rule: str, baseline: str, author: str, request_id: str
    ) -> Stored[Evaluation]:
        """Queue an evaluation. The same request again, however late, gives the evaluation that it made.

        Raises InvalidArgument and NotFound, naming the field.
        """
        model = _name(model, ("model_version",), project, "evaluation.model_version")
        dataset = _name(dataset, ("dataset_version",), project, "evaluation.dataset_version")
        if rule:
            await asyncio.to_thread(check_rule, rule)
        if baseline:
            baseline = _name(baseline, ("model_version", "endpoint"), project, "evaluation.baseline")
        elif needs_baseline(rule):
            text = "The rule compares with a baseline: name a model version, or the endpoint that serves it."
            raise InvalidArgument(text, field="evaluation.baseline")
        await self.peers.check(model, dataset, baseline, author)
        return await self._store(project, id, model, dataset, rule, baseline, author, request_id)

    async def of_baseline(self, evaluation: Evaluation, model_version: str) -> str:
        """The evaluation of the baseline on the same data: one that succeeded, else a new one; answers its name."""
        done = await self.repository.done(model_version, evaluation.dataset_version)
        if done is not None:
            return done.id
        # Fixed by what is compared, so that repeating this after a crash makes no second one.
        id = names.new_id(evaluation.project, f"baseline {model_version} of {evaluation.name}")
        name = names.build("evaluation", evaluation.project, id)
        with suppress(AlreadyExists):
            await self._store(
                evaluation.project, id, model_version, evaluation.dataset_version, "", "", evaluation.author, ""
            )
        return name

    async def _store(
        self, project: str, id: str, model: str, dataset: str, rule: str, baseline: str, author: str, request_id: str
    ) -> Stored[Evaluation]:
        cause = current_cause.get() or Cause()
        evaluation = Evaluation(
            name=names.build("evaluation", project, id),
            project=project,
            model_version=model,
            dataset_version=dataset,
            rule=rule,
            baseline=baseline,
            author=author,
            create_time=now(),
            correlation_id=cause.correlation_id,
            causation_id=cause.causation_id,
            traceparent=cause.traceparent,
        )
        try:
            stored = await self.repository.evaluations.create(evaluation.name, evaluation)
        except AlreadyExists:
            if not request_id:
                raise
            stored = await self.repository.evaluations.get(evaluation.name)  # its id is a hash of this very request
        self.woken.set()
        return stored

    async def cancel(self, name: str) -> Stored[Evaluation]:
        """Ask an evaluation to stop."""
        stored = await self.repository.evaluations.change(name, Evaluation.cancelling)
        self.woken.set()
        return stored


def _name(text: str, kinds: Sequence[str], project: str, field: str) -> str:
    """A name of one of these kinds and of the project; raises InvalidArgument."""
    name = names.parse(text, kind=kinds[0] if len(kinds) == 1 else None, field=field)
    if name.kind not in kinds:
        raise InvalidArgument(f"'{text}' is no {' or '.join(kinds).replace('_', ' ')}.", field=field)
    if name.project != project:
        raise InvalidArgument(f"{name} is of another project than projects/{project}.", field=field)
    return str(name)
