"""What happens from a first version to a corrected one that is served, as the events that the services would emit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock.events import NewEvent
from penstock.store import Aggregates, Cause, Database, current_cause


@dataclass(frozen=True)
class Thing:
    """An aggregate of which only the events matter."""

    step: int = 0


@dataclass
class Teller:
    """Writes events as services do: into the outbox of their aggregate."""

    things: Aggregates[Thing]
    project: str

    @classmethod
    async def open(cls, database: Database, project: str) -> Teller:
        """One collection stands for all services."""
        things = Aggregates(database, "things", Thing)
        await things.prepare()
        return cls(things, project)

    def name(self, path: str) -> str:
        """A resource of the project."""
        return f"projects/{self.project}/{path}"

    async def tell(self, aggregate: str, *events: NewEvent, chain: str = "", cause: str = "") -> int:
        """Emit events of an aggregate; answers its sequence."""
        name = self.name(aggregate)
        token = current_cause.set(Cause(chain, cause))
        try:
            found = await self.things.get_many([name])
            if name not in found:
                return (await self.things.create(name, Thing(), events)).sequence
            stored = await self.things.change(name, lambda thing: (Thing(thing.step + 1), list(events)))
            return stored.sequence
        finally:
            current_cause.reset(token)

    async def commit(self, number: int, *, chain: str, dataset: str = "digits", **data: Any) -> str:
        """A version was committed; answers the id of the event."""
        fields = {"dataset": self.name(f"datasets/{dataset}"), "number": number, "author": "ann", **data}
        fields["version"] = f"{fields['dataset']}/versions/{number}"
        sequence = await self.tell(f"datasets/{dataset}", NewEvent("dataset.version.committed", fields), chain=chain)
        return f"{fields['dataset']}@{sequence}"

    async def train(self, run: str, number: int, version: str, *, chain: str) -> None:
        """A run on a dataset version made version `number` of the model."""
        path, model = self.name(f"runs/{run}"), self.name(f"models/digits/versions/{number}")
        data, artifact = self.name(version), f"sha256:{run}"
        queued = {"run": path, "datasetVersion": data, "algorithm": "mlp", "parameters": {"depth": 3}, "subject": "ann"}
        done = {"run": path, "attempt": 1, "codeCommit": f"commit-{run}", "metrics": {"accuracy": 0.9}}
        await self.tell(f"runs/{run}", NewEvent("training.run.queued", queued), chain=chain)
        await self.tell(f"runs/{run}", NewEvent("training.run.succeeded", done), chain=chain)
        registered = {"modelVersion": model, "run": path, "datasetVersion": data, "artifact": artifact}
        await self.tell("models/digits", NewEvent("training.model.registered", registered), chain=chain)

    async def deploy(self, number: int, model: int, *, chain: str, previous: int = 0) -> int:
        """A revision serves a version of the model."""
        revision = self.name(f"endpoints/live/revisions/{number}")
        data = {"revision": revision, "modelVersion": self.name(f"models/digits/versions/{model}")}
        if previous:
            data["previous"] = self.name(f"endpoints/live/revisions/{previous}")
        return await self.tell("endpoints/live", NewEvent("serving.revision.ready", data), chain=chain)

    async def pipeline(self, run: str, causes: Sequence[str], made: Sequence[str], *, chain: str) -> None:
        """A pipeline run made these resources."""
        path = f"pipelines/retrain/runs/{run}"
        name = self.name(path)
        started = {"run": name, "pipeline": self.name("pipelines/retrain"), "causes": list(causes)}
        await self.tell(path, NewEvent("pipeline.run.started", started), chain=chain)
        for number, resource in enumerate(made):
            step = {"run": name, "step": f"s{number}", "state": "SUCCEEDED", "resource": self.name(resource)}
            await self.tell(path, NewEvent("pipeline.run.step_ended", step), chain=chain)
        await self.tell(path, NewEvent("pipeline.run.succeeded", {"run": name}), chain=chain)


async def first_loop(teller: Teller) -> None:
    """By hand: a version, a run, an evaluation, a revision."""
    await teller.commit(1, chain="by-hand", message="digits.jsonl", origin="import", records=1400)
    await teller.train("one", 1, "datasets/digits/versions/1", chain="by-hand")
    data = {
        "evaluation": teller.name("evaluations/e1"),
        "modelVersion": teller.name("models/digits/versions/1"),
        "datasetVersion": teller.name("datasets/holdout/versions/1"),
        "metrics": {"accuracy": 0.91},
    }
    await teller.tell("evaluations/e1", NewEvent("evaluation.completed", data), chain="by-hand")
    await teller.deploy(1, 1, chain="by-hand")


async def second_loop(teller: Teller) -> int:
    """By itself: a corrected version, and what a pipeline made of it. Answers the endpoint's sequence."""
    cause = await teller.commit(2, chain="loop", message="corrected", origin="person", changed=112)
    await teller.train("two", 2, "datasets/digits/versions/2", chain="loop")
    sequence = await teller.deploy(2, 2, chain="loop", previous=1)
    await teller.pipeline("r1", [cause], ["runs/two", "endpoints/live/revisions/2"], chain="loop")
    return sequence
