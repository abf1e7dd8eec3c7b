"""Triton's own Python environment: its Python backend needs numpy 1, and the platform does not.

Made once per user and lock file, beside the homes and not in them, so that two homes share it. It is built aside and
renamed when it works: a killed set-up leaves nothing that looks finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import FailedPrecondition, ResourceExhausted, Unavailable

LOCK_FILE = Path(__file__).parent / "triton-requirements.txt"
_FACTS = "penstock.json"
_PYTHONS = ("3.11", "3.12")  # for which there is both numpy 1 and a stub of Triton's Python backend

# Triton starts its Python backend by a shell, unquoted.
_SAFE_PATH = re.compile(r"[\w/.,:+@=~-]+")

# What is being done, and how much of all is done (0 to 1).
Progress = Callable[[str, float], None]

# Runs in the new environment: where things are, and whether Triton's embedded interpreter will find its library.
_INSPECT = """
import ctypes, json, os, sys, sysconfig
import numpy, onnxruntime
assert numpy.__version__.startswith("1."), numpy.__version__
library = "libpython%d.%d.so.1.0" % sys.version_info[:2]
folder = sysconfig.get_config_var("LIBDIR") or ""
path = os.path.join(folder, library)
try:
    ctypes.CDLL(path if os.path.exists(path) else library)
    found = True
except OSError:
    found = False
facts = {"python": "%d.%d" % sys.version_info[:2], "site_packages": sysconfig.get_path("purelib"), "library": library,
         "library_folder": folder if os.path.exists(path) else "", "library_found": found}
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class TritonEnvironment:
    """A finished environment: where its server, its backends and its libraries are."""

    folder: Path
    python: str
    libraries: tuple[Path, ...]

    @property
    def site_packages(self) -> Path:
        """Where its packages lie."""
        return self.folder / "lib" / f"python{self.python}" / "site-packages"

    @property
    def server(self) -> Path:
        """The `tritonserver` executable."""
        return self.site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        """What runs the Python of a model's backend."""
        return self.backends / "python" / "triton_python_backend_stub"

    @property
    def base_python(self) -> Path:
        """The Python that the environment was made of, with its standard library."""
        return (self.folder / "bin" / "python").resolve().parents[1]

    @property
    def standard_library(self) -> Path:
        """That library."""
        return self.base_python / "lib" / f"python{self.python}"

    @property
    def backends(self) -> Path:
        """What `--backend-directory` takes."""
        return self.folder / "backends"


def environment_folder(data_dir: Path, lock_file: Path = LOCK_FILE) -> Path:
    """Where the environment of this lock file lies in `data_dir`, made or not."""
    return data_dir / f"triton-{hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]}"


def find_environment(data_dir: Path) -> TritonEnvironment | None:
    """The finished environment in `data_dir`, or None: then `setup_environment` must be called."""
    folder = environment_folder(data_dir)
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return TritonEnvironment(folder, facts["python"], tuple(Path(path) for path in facts["libraries"]))


def setup_environment(data_dir: Path, progress: Progress = lambda message, done: None) -> TritonEnvironment:
    """Make the environment in `data_dir` unless it is there; blocks for some 10 s, and for whoever is making it now.

    Raises Unavailable if a package cannot be fetched, FailedPrecondition if this machine lacks something,
    ResourceExhausted if the disk is full; nothing half-made is left.
    """
    if not _SAFE_PATH.fullmatch(str(data_dir)):
        raise FailedPrecondition(
            f"Triton cannot be started from {data_dir}: set XDG_DATA_HOME to a folder without spaces or quotes"
        )
    found = find_environment(data_dir)
    if found is None:
        build_once(environment_folder(data_dir), lambda draft: _build(draft, LOCK_FILE, progress))
        found = find_environment(data_dir)
        assert found is not None
    progress("Triton's environment is ready", 1.0)
    return found


def build_once(target: Path, build: Callable[[Path], None]) -> None:
    """Have `build` fill a folder beside `target`, and rename it; a second caller waits and finds it done."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (target.parent / f".{target.name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if target.exists():
            return
        draft = target.parent / f".{target.name}.new"
        shutil.rmtree(draft, ignore_errors=True)  # what a killed predecessor left
        try:
            build(draft)
            draft.rename(target)
        except OSError as error:
            raise ResourceExhausted(f"{target} could not be written: {error}. Free some space and try again") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _build(draft: Path, lock_file: Path, progress: Progress) -> None:
    progress("Making an environment for Triton", 0.0)
    _run([_base_python(), "-m", "venv", str(draft)])
    python = str(draft / "bin" / "python")
    progress("Installing Triton", 0.1)
    # No dependency is resolved, no code of a package is run: what the lock file names, by digest, and nothing else.
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile", "--progress-bar", "off"]
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", *options, "--requirement", str(lock_file)]
    steps = 2 * sum("==" in line for line in lock_file.read_text(encoding="utf-8").splitlines())
    _run(pip, on_step=lambda line, step: progress(line, 0.1 + 0.8 * min(1.0, step / steps)))
    progress("Checking Triton", 0.95)
    _finish(draft, json.loads(_run([python, "-I", "-c", _INSPECT])))


def _finish(draft: Path, facts: dict[str, str]) -> None:
    """Lay out the backend as Triton wants it, with the stub of this Python, and write the facts last."""
    if not facts["library_found"]:
        raise FailedPrecondition(
            f"Triton's Python backend needs {facts['library']}, which is not on this machine: "
            f"install it (on Debian or Ubuntu: apt install libpython{facts['python']}), then run `penstock setup` again"
        )
    site_packages = Path(facts["site_packages"])
    server = site_packages / "pytriton" / "tritonserver"
    backend = draft / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    shutil.copytree(server / "python_backend_stubs" / facts["python"], backend, dirs_exist_ok=True)
    (server / "bin" / "tritonserver").chmod(0o755)
    final = draft.parent / draft.name.removeprefix(".").removesuffix(".new")
    libraries = [str(final / site_packages.relative_to(draft) / "nvidia_pytriton.libs")]
    if facts["library_folder"]:
        libraries.append(facts["library_folder"])
    text = json.dumps({"python": facts["python"], "libraries": libraries})
    (draft / _FACTS).write_text(text, encoding="utf-8")


def _base_python() -> str:
    """An interpreter that Triton's packages exist for: this one, if it will do."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" in _PYTHONS:
        return sys.executable
    for version in _PYTHONS:
        found = shutil.which(f"python{version}")
        if found:
            return found
    wanted = " or ".join(_PYTHONS)
    raise FailedPrecondition(f"Triton needs Python {wanted}: install one, so that `python{_PYTHONS[0]}` is on PATH")


def _run(command: list[str], on_step: Callable[[str, int], None] = lambda line, step: None) -> str:
    """Run a command to its end and return its output; `on_step` hears of pip's packages as they come."""
    output: list[str] = []
    step = 0
    # stderr is kept: pip says there what is wrong. Proxies and pip's own settings come with the inherited environment.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/") as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line.rstrip())
            if line.lstrip().startswith(("Collecting", "Downloading", "Using cached", "Installing")):
                step += 1
                on_step(line.strip().partition(" (")[0], step)
    if process.returncode == 0:
        return "\n".join(line for line in output if not line.startswith("WARNING"))
    tail = "\n".join(line for line in output[-20:] if not line.startswith("WARNING"))
    if any(os.strerror(28) in line for line in output):
        raise ResourceExhausted(f"The disk is full: free 500 MB and run `penstock setup` again.\n{tail}")
    raise Unavailable(f"Triton's environment could not be made. Mend this, then run `penstock setup` again:\n{tail}")
