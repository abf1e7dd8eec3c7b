"""Promise: nothing that the author of a model puts into its directory is run as code by who serves it.

Two mechanisms see to it, each by itself: a directory may hold the model's own files only, and these are nowhere where
Triton's Python looks for modules.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.algorithms.model_format import ModelCard
from penstock.api.serving.v1 import serving_service_pb2 as pb
from penstock.backing.triton_repository import write_repository
from services.serving import instances
from tests.support.served_models import scaling_model
from tests.support.serving_platform import PROJECT, ServingPlatform

pytestmark = pytest.mark.asyncio(loop_scope="module")
# The backend imports "1.model", which runs `1/__init__.py`; numpy 1 tries pickle5, whether it is there or not.
NAMES = ("__init__.py", "pickle5.py", "pickle5/__init__.py")


@pytest.fixture
def traces() -> Iterator[Path]:
    """A folder that every user can write into."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-traces-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def armed(shared: ServingPlatform, traces: Path, name: str) -> str:
    """A version of a model whose directory has a program of that name, which leaves a trace if it is run."""
    folder = scaling_model(traces / "model", 3.0)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"open({str(traces / 'ran')!r}, 'a').write('x')\n")
    return shared.training.add(PROJECT, "armed", folder)


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelCard, "check_names", lambda *_: None)


@pytest.mark.parametrize("name", [*NAMES, "model.py", "weights.so", "module.pyc", "site.pth", "notes.txt"])
async def test_a_model_with_files_that_are_none_of_its_own_is_refused(
    shared: ServingPlatform, traces: Path, name: str
) -> None:
    made = await shared.deploy("armed", armed(shared, traces, name))
    failed = await shared.wait_for(made.name, pb.Revision.FAILED)
    assert f"'{name}' has no place in a model directory" in failed.reason and "beside the directory" in failed.reason
    assert not (traces / "ran").exists()


@pytest.mark.parametrize("name", NAMES)
async def test_even_then_nothing_that_serves_it_runs_them(
    shared: ServingPlatform, traces: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    unchecked(monkeypatch)
    await shared.served("disarmed", armed(shared, traces, name))
    assert (await shared.predict("disarmed"))[1]["outputs"][0]["data"] == [3.0]
    assert not (traces / "ran").exists()


@pytest.mark.parametrize("name", NAMES)
async def test_unchecked_and_beside_the_backend_they_are_run(
    shared: ServingPlatform, traces: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Negative control of the tests above."""

    def beside(folder: Path, endpoint: str, model: Path, **more: Any) -> Path:
        written = write_repository(folder, endpoint, model, **more)
        shutil.copytree(model, written / endpoint / "1", dirs_exist_ok=True)
        return written

    unchecked(monkeypatch)
    monkeypatch.setattr(instances, "write_repository", beside)
    await shared.served("mined", armed(shared, traces, name))
    assert (traces / "ran").exists()
