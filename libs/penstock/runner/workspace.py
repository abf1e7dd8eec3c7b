"""The folder of one attempt's command: inputs, code, parameters, and room for what it makes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import InvalidArgument
from penstock.jobs.spec import JobSpec
from penstock.objects import ObjectStore, fetch_tree, safe_join
from penstock.runner.processes import MARKER
from penstock.runtime.settings import NO_TELEMETRY

BASE = "base"
_RESERVED = "PENSTOCK_"


@dataclass(frozen=True)
class Workspace:
    """Paths of one attempt. `root` is made for it alone; `checkpoint` outlives it, for the next attempt."""

    root: Path
    checkpoint: Path

    @property
    def input(self) -> Path:
        """PENSTOCK_INPUT_DIR."""
        return self.root / "input"

    @property
    def output(self) -> Path:
        """PENSTOCK_OUTPUT_DIR."""
        return self.root / "output"

    @property
    def code(self) -> Path:
        """Where code is fetched to; the command's folder."""
        return self.root / "code"

    @property
    def params(self) -> Path:
        """PENSTOCK_PARAMS."""
        return self.root / "params.json"

    @property
    def metrics(self) -> Path:
        """PENSTOCK_METRICS."""
        return self.root / "metrics.jsonl"

    @property
    def prune(self) -> Path:
        """A file that appears when a trial should give up."""
        return self.root / "prune"

    @property
    def temporary(self) -> Path:
        """TMPDIR and HOME."""
        return self.root / "tmp"

    def prepare(self, spec: JobSpec) -> None:
        """Make the folders and the parameters' file."""
        for folder in (self.input, self.output, self.code, self.temporary, self.checkpoint):
            folder.mkdir(parents=True, exist_ok=True)
        self.params.write_text(json.dumps(dict(spec.parameters)))
        self.metrics.touch()

    def fetch_inputs(self, spec: JobSpec, objects: ObjectStore, go_on: Callable[[], None]) -> None:
        """Fetch the inputs, digests checked; `go_on` is called between files and may raise to stop."""
        for item in spec.inputs:
            folder = safe_join(self.input, item.name, field="inputs.name")
            folder.mkdir(parents=True, exist_ok=True)
            if item.meta is not None:
                (folder / "input.json").write_text(json.dumps(item.meta))
            for file in item.files:
                go_on()
                objects.fetch(file.digest, safe_join(folder, file.path, field="inputs.files.path"))
            if item.tree:
                go_on()
                fetch_tree(objects, item.tree, folder)
        if spec.base_model:
            if any(item.name == BASE for item in spec.inputs):
                raise InvalidArgument(
                    "The name 'base' is taken by the base model; give the input another.", field="inputs.name"
                )
            go_on()
            fetch_tree(objects, spec.base_model, self.input / BASE)

    def environment(self, spec: JobSpec, marker: str) -> dict[str, str]:
        """All that the command's environment holds: nothing of the service's own."""
        taken = sorted(name for name in spec.env if name.startswith(_RESERVED))
        if taken:
            raise InvalidArgument(f"Variables beginning with {_RESERVED} are Penstock's: {taken[0]}.", field="env")
        threads = str(max(1, math.ceil(spec.resources.cpu)))
        return {
            "PATH": f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.temporary),
            "TMPDIR": str(self.temporary),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **{name: threads for name in THREADS},
            **NO_TELEMETRY,
            **spec.env,
            **self._contract(),
            MARKER: marker,
        }

    def _contract(self) -> Mapping[str, str]:
        return {
            "PENSTOCK_INPUT_DIR": str(self.input),
            "PENSTOCK_OUTPUT_DIR": str(self.output),
            "PENSTOCK_PARAMS": str(self.params),
            "PENSTOCK_METRICS": str(self.metrics),
            "PENSTOCK_CHECKPOINT_DIR": str(self.checkpoint),
            "PENSTOCK_PRUNE": str(self.prune),
        }


# Numeric libraries start a thread per core of the machine unless told how many the job asked for.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
