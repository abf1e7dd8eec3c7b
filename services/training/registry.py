"""Registering a model version: the next number of its model, once for each run.

Two documents take part. The version is inserted first, under its number: that insert is the fence, and it keeps the
numbers dense. The model follows with the event; whoever finds a version that its model does not know yet writes that
first, so the events come in order whatever died in between.
"""

from __future__ import annotations

from dataclasses import replace

from penstock import names
from penstock.errors import AlreadyExists, Conflict
from penstock.events.envelope import NewEvent
from penstock.store import now
from services.training.repository import Repository, news
from services.training.versions import Model, ModelVersion, add_version

_ATTEMPTS = 1000


async def register(repository: Repository, draft: ModelVersion) -> ModelVersion:
    """The version of `draft.model` that `draft.run` made; `draft` gets its name and number here.

    Calling it again, from anywhere, gives the same version.
    """
    known = await repository.model(draft.model)
    latest = known.value.latest if known else 0
    # Read after `latest`: whoever registers this run from now on takes a number above it, where the walk meets it.
    version = await repository.version_of_run(draft.model, draft.run)
    number = latest
    while version is None and number < latest + _ATTEMPTS:
        number += 1
        found = await repository.insert_version(_numbered(draft, number))
        await _announce(repository, found)
        version = found if found.run == draft.run else None
    if version is None:
        raise Conflict(f"{draft.model} gets versions faster than this one can be registered: try again.")
    await _announce(repository, version)
    return version


def _numbered(draft: ModelVersion, number: int) -> ModelVersion:
    model = names.parse(draft.model, kind="model")
    return replace(draft, number=number, name=names.build("model_version", model.project, model.id, number))


async def _announce(repository: Repository, version: ModelVersion) -> None:
    """Make the model know the version, and say so. Nothing if it does already."""
    moment = now()
    if await repository.model(version.model) is None:
        empty = Model(version.model, names.project_of(version.model), moment, moment)
        first, facts = add_version(empty, version, moment)
        try:
            await repository.models.create(version.model, first, news(facts))
            return
        except AlreadyExists:
            pass  # somebody announced it between the look and the write: the change below finds that out

    def add(model: Model) -> Model | tuple[Model, list[NewEvent]]:
        changed, facts = add_version(model, version, moment)
        return (changed, news(facts)) if facts else changed

    await repository.models.change(version.model, add)
