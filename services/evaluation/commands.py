"""The use cases: start and cancel evaluations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from penstock import names
from penstock.errors import InvalidArgument
from penstock.store import Stored, current_cause, now
from services.evaluation.model import Evaluation, State
from services.evaluation.peers import Peers
from services.evaluation.repository import Repository
from services.evaluation.rules import check_rule


@dataclass
class Evaluations:
    """What may be done with evaluations; `woken` makes the reconciler look."""

    repository: Repository
    peers: Peers
    woken: asyncio.Event

    async def create(
        self, project: str, id: str, *, model: str, dataset: str, rule: str, baseline: str, author: str, request_id: str
    ) -> Stored[Evaluation]:
        """Queue an evaluation. Raises InvalidArgument and NotFound, naming the field."""
        _in_project(names.parse(model, kind="model_version", field="evaluation.model_version"), project)
        _in_project(names.parse(dataset, kind="dataset_version", field="evaluation.dataset_version"), project)
        if rule:
            check_rule(rule)
        if baseline:
            parsed = names.parse(baseline, field="evaluation.baseline")
            _in_project(parsed, project)
            if parsed.kind not in ("model_version", "endpoint"):
                raise InvalidArgument("A baseline is a model version or an endpoint.", field="evaluation.baseline")
        await self.peers.check(model, dataset, author)
        return await self._store(project, id, model, dataset, rule, baseline, author, request_id)

    async def of_baseline(self, evaluation: Evaluation, model_version: str) -> str:
        """The evaluation of the baseline on the same data: one that succeeded, else a new one; answers its name."""
        done = await self.repository.done(model_version, evaluation.dataset_version)
        if done is not None:
            return done.id
        # Fixed by what is compared, so that repeating this after a crash makes no second one.
        id = names.new_id(evaluation.project, f"baseline of {evaluation.name}")
        stored = await self._store(
            evaluation.project, id, model_version, evaluation.dataset_version, "", "", evaluation.author, "baseline"
        )
        return stored.id

    async def _store(
        self, project: str, id: str, model: str, dataset: str, rule: str, baseline: str, author: str, request_id: str
    ) -> Stored[Evaluation]:
        cause = current_cause.get()
        evaluation = Evaluation(
            name=names.build("evaluation", project, id),
            project=project,
            model_version=model,
            dataset_version=dataset,
            rule=rule,
            baseline=baseline,
            author=author,
            create_time=now(),
            correlation_id=cause.correlation_id if cause else "",
            traceparent=cause.traceparent if cause else "",
        )
        stored = await self.repository.evaluations.create(evaluation.name, evaluation, request_id=request_id or None)
        self.woken.set()
        return stored

    async def cancel(self, name: str) -> Stored[Evaluation]:
        """Ask an evaluation to stop."""
        stored = await self.repository.evaluations.change(
            name, lambda e: e if e.state is State.CANCELLING else e.cancelling()
        )
        self.woken.set()
        return stored


def _in_project(name: names.ResourceName, project: str) -> None:
    if name.project != project:
        raise InvalidArgument(f"{name} is of another project than projects/{project}.", field=name.kind)
