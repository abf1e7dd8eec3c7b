"""The Tritons of revisions: their files, their processes. They outlive this service, which adopts them by name."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from penstock.algorithms.model_format import ModelCard
from penstock.backing.process import ManagedProcess
from penstock.backing.triton import TritonInstance, sweep
from penstock.backing.triton_environment import TritonEnvironment
from penstock.backing.triton_repository import write_repository
from penstock.errors import FailedPrecondition, PenstockError, ResourceExhausted
from penstock.objects import ObjectStore
from penstock.objects.trees import fetch_tree
from services.serving.traffic import Address, key_of

PREFIX = "triton-"
STOP_SECONDS = 5.0
Key = tuple[str, int]  # the endpoint's name and the number of the revision


class Instances:
    """Starts, adopts and stops one Triton a revision. `environment` finds Triton's, or raises FailedPrecondition."""

    def __init__(self, home: Path, objects: ObjectStore, environment: Callable[[], TritonEnvironment]) -> None:
        self._home = home
        self._root = home / "serving"
        self._objects = objects
        self._environment = environment
        self._known: dict[Key, ManagedProcess] = {}
        self._cards: dict[Key, ModelCard] = {}

    async def start(self, endpoint: str, revision: int, artifact: str) -> ModelCard:
        """Adopt the revision's Triton or start it, on the files of its model; returns when it is loaded.

        Raises FailedPrecondition, InvalidArgument, NotFound, DataCorrupt for a model that cannot be served,
        ResourceExhausted for a full disk, Unavailable if Triton does not start.
        """
        key, folder = (endpoint, revision), self._folder(endpoint, revision)
        running = self.alive(endpoint, revision)
        if not running or key not in self._cards:
            try:
                self._cards[key] = await asyncio.to_thread(self._prepare, endpoint, folder, artifact, running)
            except OSError as error:
                raise ResourceExhausted(f"The files of the model could not be written: {error}.") from error
        name, model = _name(endpoint, revision), key_of(endpoint)[1]
        files, repository = folder / "model", folder / "repository"
        instance = TritonInstance(self._home, name, self._environment(), repository, files, model)
        self._known[key] = await instance.start()
        return self._cards[key]

    def alive(self, endpoint: str, revision: int) -> bool:
        """Whether its process runs."""
        process = self._process(endpoint, revision)
        if process is not None and not process.alive():
            process = ManagedProcess.recorded(self._home, process.name)  # another one may have been started
            if process is not None:
                self._known[endpoint, revision] = process
        return process is not None and process.alive()

    async def exited(self, endpoint: str, revision: int) -> None:
        """Return when its process is gone."""
        process = self._process(endpoint, revision)
        if process is not None:
            await process.exited()

    def address(self, endpoint: str, revision: int) -> Address | None:
        """The ports where it listens, or listened last; None if it was never started here."""
        process = self._process(endpoint, revision)
        return (int(process.facts["http_port"]), int(process.facts["grpc_port"])) if process is not None else None

    async def remove(self, endpoint: str, revision: int) -> None:
        """Stop it for good and remove its files. Idempotent."""
        process = self._process(endpoint, revision)
        if process is not None:
            await asyncio.to_thread(process.stop, STOP_SECONDS)
            sweep(process)
            process.forget()
        self._known.pop((endpoint, revision), None)
        self._cards.pop((endpoint, revision), None)
        await asyncio.to_thread(shutil.rmtree, self._folder(endpoint, revision), True)

    def found(self) -> set[Key]:
        """The revisions of which a process's record or a folder is there."""
        processes = {_key_of(path.stem) for path in (self._home / "run").glob(f"{PREFIX}*.json")}
        folders = {
            (f"projects/{path.parts[-3]}/endpoints/{path.parts[-2]}", int(path.parts[-1]))
            for path in self._root.glob("*/*/*")
            if path.name.isdigit()
        }
        return {key for key in processes if key is not None} | folders

    def _prepare(self, endpoint: str, folder: Path, artifact: str, running: bool) -> ModelCard:
        """Fetch the model unless it is there as it was stored, and lay out what Triton reads."""
        model, repository = folder / "model", folder / "repository"
        try:
            card = ModelCard.load(model)
        except PenstockError:
            card = self._fetch(artifact, model)
        if not (running and repository.is_dir()):
            write_repository(repository, key_of(endpoint)[1], model)
        return card

    def _fetch(self, artifact: str, model: Path) -> ModelCard:
        draft = model.with_name(".model.draft")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(model, ignore_errors=True)
        tree = fetch_tree(self._objects, artifact, draft)
        card = ModelCard.load(draft)
        card.check_names(file.path for file in tree.files)
        draft.rename(model)
        return card

    def _process(self, endpoint: str, revision: int) -> ManagedProcess | None:
        key = endpoint, revision
        if key not in self._known:
            process = ManagedProcess.recorded(self._home, _name(endpoint, revision))
            if process is None:
                return None
            self._known[key] = process
        return self._known[key]

    def _folder(self, endpoint: str, revision: int) -> Path:
        project, id = key_of(endpoint)
        return self._root / project / id / str(revision)


def _name(endpoint: str, revision: int) -> str:
    """Of its process. Ids hold no underscore: two endpoints never share a name."""
    project, id = key_of(endpoint)
    return f"{PREFIX}{project}_{id}_{revision}"


def _key_of(process: str) -> Key | None:
    words = process.removeprefix(PREFIX).split("_")
    if len(words) != 3 or not words[2].isdigit():
        return None
    return f"projects/{words[0]}/endpoints/{words[1]}", int(words[2])


def find_or_explain(found: TritonEnvironment | None) -> TritonEnvironment:
    """The environment, or FailedPrecondition with what to do."""
    if found is None:
        raise FailedPrecondition("Triton is not set up on this machine: run `penstock setup`, then try again.")
    return found
