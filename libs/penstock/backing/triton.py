"""One Triton per revision of an endpoint: a process that outlives the services and leaves nothing when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from penstock.backing.ports import choose_port
from penstock.backing.process import ManagedProcess, Program, http_ok, wait_ready
from penstock.backing.records import Facts
from penstock.backing.sandbox import USERS, Sandbox
from penstock.backing.triton_environment import TritonEnvironment
from penstock.errors import FailedPrecondition, Unavailable
from penstock.runtime.settings import NO_TELEMETRY

_SHARED_MEMORY = Path("/dev/shm")
_BACKEND_STARTS_WITHIN = 60.0  # seconds
# Connections that clients keep alive would hold a stop up for 20 s and more; the edge has drained it before.
_EXIT_TIMEOUT = 2
# The reason ends where the backend's Python traceback begins.
_LOAD_FAILURE = re.compile(
    r"(?:failed to load '[^']*' version \d+: (?:\w+: )?|Poll failed for model directory '[^']*': )"
    r"(.*?)(?:\\n\\nAt:|\"?$)",
    re.MULTILINE,
)
_PORTS = ("http", "grpc", "metrics")


class TritonInstance:
    """A Triton that serves one model repository (see `write_repository`) under the name `model`.

    `files` is the model's directory. `name` is unique in the home, such as `triton-<project>-<endpoint>-<revision>`.
    Where the platform is root, Triton is a user of its own, and both folders come to belong to it.
    """

    def __init__(
        self, home: Path, name: str, environment: TritonEnvironment, repository: Path, files: Path, model: str
    ) -> None:
        self.home = home
        self.name = name
        self.model = model
        self._environment = environment
        self._repository = repository
        self._files = files
        self.process: ManagedProcess | None = None

    @property
    def http_port(self) -> int:
        """Where KServe v2 over HTTP is answered; once started."""
        return self._port("http")

    @property
    def grpc_port(self) -> int:
        """Where KServe v2 over gRPC is answered; once started."""
        return self._port("grpc")

    async def start(self, *, attached: bool = False, timeout: float = 60) -> ManagedProcess:
        """Adopt the running one or start one (on the ports that it had); returns when the model is ready.

        Raises FailedPrecondition with the reason if the model does not load, Unavailable if Triton does not start.
        """
        process = ManagedProcess.ensure(self.home, self.name, self._program, attached=attached)
        self.process = process
        try:
            await wait_ready(process, self.ready, timeout=timeout, interval=0.02)
        except Unavailable as error:
            await self.stop(grace=0)
            raise _explain(error) from error
        # Triton opens them to all users of the machine. (Where they are not its own, somebody may have come before us.)
        for region in _regions(process):
            with contextlib.suppress(FileNotFoundError):  # it died just now; whoever asks it next will tell
                region.chmod(0o600)
        return process

    async def ready(self) -> bool:
        """Whether server and model say that they are ready."""
        paths = ("/v2/health/ready", f"/v2/models/{self.model}/ready")
        return all([await http_ok(self.http_port, path) for path in paths])

    async def stop(self, grace: float = 5.0) -> None:
        """End it, and remove its shared memory. Take it out of the edge first: it does not wait for clients."""
        process = self.process or ManagedProcess.recorded(self.home, self.name)
        if process is not None:
            await asyncio.to_thread(process.stop, grace)
            sweep(process)

    async def remove(self, grace: float = 5.0) -> None:
        """Stop it for good: its record goes too."""
        await self.stop(grace)
        process = self.process or ManagedProcess.recorded(self.home, self.name)
        if process is not None:
            process.forget()

    def _port(self, kind: str) -> int:
        if self.process is None:
            raise FailedPrecondition(f"{self.name} has not been started")
        return int(self.process.facts[f"{kind}_port"])

    def _program(self) -> Program:
        before = ManagedProcess.recorded(self.home, self.name)
        if before is not None:
            sweep(before)
        ports = {f"{kind}_port": choose_port(self.home, self.name, None, key=f"{kind}_port") for kind in _PORTS}
        prefix = f"penstock-{secrets.token_hex(8)}-"
        argv = [str(self._environment.server), *_arguments(self._environment, ports, prefix)]
        env = {
            "PATH": f"{self._environment.folder / 'bin'}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": ":".join(str(path) for path in self._environment.libraries),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            **NO_TELEMETRY,
        }
        facts: Facts = {**ports, "shm_prefix": prefix}
        sandbox = _sandbox(self.home, self._environment, (self._repository, self._files))
        # Here too Python looks for modules: the folder must hold nothing that is not ours (see `triton_repository`).
        return Program(self.name, argv, env=env, facts=facts, cwd=self._repository, owns_children=True, sandbox=sandbox)


def _sandbox(home: Path, environment: TritonEnvironment, own: Sequence[Path]) -> Sandbox | None:
    """What a model that takes its Triton over could do is bounded by this, if the platform is root; else None."""
    if os.geteuid() != 0:
        return None
    probes = (environment.server, environment.stub, environment.site_packages / "numpy" / "__init__.py")
    visible = (environment.folder, environment.base_python, *environment.libraries)
    return Sandbox(own, visible, (*probes, environment.standard_library / "os.py"), home / "run" / "users.lock")


def _arguments(environment: TritonEnvironment, ports: dict[str, int], prefix: str) -> list[str]:
    flags = [
        # Its working directory: Triton starts the backend by a shell, and breaks on a path with a space in it.
        "--model-repository=.",
        f"--backend-directory={environment.backends}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={_EXIT_TIMEOUT}",
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        "--log-info=false",
    ]
    for kind in _PORTS:
        flags += [f"--{kind}-address=127.0.0.1", f"--{kind}-port={ports[f'{kind}_port']}"]
    # A key that no client can send, since no header holds a line break: nobody reaches anything but inference, health,
    # metadata and statistics. (A secret one would stand here, among arguments, which every user of the machine reads.)
    key = "penstock\nclosed=\n"
    closed = "model-repository,shared-memory,trace,logging"
    return [*flags, f"--http-restricted-api={closed}:{key}", f"--grpc-restricted-protocol={closed}:{key}"]


def sweep(dead: ManagedProcess) -> list[Path]:
    """Remove what a Triton that is gone left outside the home; returns what that was.

    Shared memory is found by its prefix, unless it was Triton's own and went with it. Its Python backend also makes an
    empty folder under /tmp, by a fixed pattern; one as old as the process is taken for its own (another's of such a
    user would not miss it: it is for packed environments, which then are in it).
    """
    regions = _regions(dead)
    for path in regions:
        path.unlink(missing_ok=True)
    began = dead.identity.started_at()
    folders = [path for path in Path("/tmp").glob("python_env_??????") if _empty_since(path, began)]
    for path in folders:
        with contextlib.suppress(OSError):
            path.rmdir()
    return sorted([*regions, *folders])


def _regions(process: ManagedProcess) -> list[Path]:
    prefix = str(process.facts.get("shm_prefix", ""))
    return [path for path in _SHARED_MEMORY.iterdir() if prefix and path.name.startswith(prefix)]


def _empty_since(folder: Path, began: float) -> bool:
    try:
        found = folder.stat()
        empty = not any(folder.iterdir())
    except OSError:
        return False
    return empty and found.st_uid in (os.getuid(), *USERS) and -2 <= found.st_mtime - began <= _BACKEND_STARTS_WITHIN


def _explain(error: Unavailable) -> FailedPrecondition | Unavailable:
    """Tell a model that does not load, for good, from a server that may start at the next try."""
    found = _LOAD_FAILURE.search(error.message)
    if found is None:
        return error
    return FailedPrecondition(f"Triton cannot load the model: {found[1].strip()}", field="model_version")
