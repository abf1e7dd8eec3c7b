"""The whole platform on one machine: its servers, its services and its edge, started in order and kept up.

Every process is detached and recorded in the home, so whoever starts the platform again adopts what still runs, and
`stop` ends what a dead supervisor left.
"""

from __future__ import annotations

import asyncio
import json
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path

from penstock.backing.envoy import NAME as ENVOY
from penstock.backing.envoy import EnvoyServer, admin_port
from penstock.backing.health import Hung, answers
from penstock.backing.ports import choose_port, keep_free, port_free
from penstock.backing.process import ManagedProcess, Program, http_ok, wait_ready
from penstock.backing.records import read_record
from penstock.backing.stack import Stack
from penstock.backing.supervisor import Supervisor
from penstock.backing.triton import sweep
from penstock.edge import Edge
from penstock.errors import FailedPrecondition, Unavailable
from penstock.jobs.local import LocalExecutor
from penstock.names import SERVICES
from penstock.rpc.keys import Keys
from penstock.runtime.files import replace_text
from penstock.runtime.settings import inherited

PROCESS = "services"
_ENDPOINTS_WITHIN = 20.0  # seconds
# The fact that is the port of a process's figures, and their page.
_FIGURES = (("metrics_port", "/metrics"), ("admin_port", "/stats/prometheus"))
# A service may publish its own events; pipeline also sends on what programs outside publish by gRPC and REST.
_ALSO_PUBLISHES: Mapping[str, tuple[str, ...]] = {"pipeline": ("penstock.*.external.>",)}
# The services need no more of the environment than this, and jobs get even less.
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "XDG_DATA_HOME", "XDG_CACHE_HOME",
    "PENSTOCK_PROJECT", "PENSTOCK_LOG_LEVEL", "PENSTOCK_LOG_FORMAT", "PENSTOCK_OBJECTS_URL",
)  # fmt: skip


def prepare_home(home: Path) -> None:
    """Make a home, or make sure that a folder can be one, before anything is written to it.

    Raises FailedPrecondition if it is not writable, or see `keep_private`.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        keep_private(home)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise FailedPrecondition(
            f"{home} must be a folder that you can write to: {error.strerror}. Choose another with --home.",
            field="home",
        ) from error


def keep_private(home: Path) -> None:
    """Close a home to other users: keys, data and logs lie in it.

    Raises FailedPrecondition for an open folder that holds something else: closing that is not ours to do.
    """
    if not stat.S_IMODE(home.stat().st_mode) & 0o077:
        return
    if not (home / "keys" / "0001.pem").is_file() and any(home.iterdir()):
        raise FailedPrecondition(
            f"{home} is open to other users and holds something else: give an empty folder, or a new one, with --home."
        )
    home.chmod(0o700)


def check_port(home: Path, port: int) -> None:
    """Raise FailedPrecondition if somebody else than the platform of this home listens on the port."""
    envoy = read_record(home, ENVOY)
    ours = envoy is not None and envoy[0].alive() and envoy[1].get("port") == port
    if not ours and not port_free(port):
        raise FailedPrecondition(
            f"Port {port} is in use: stop what listens there, or choose another with --port.", field="port"
        )


class Embedded:
    """The platform of one home directory behind 127.0.0.1:`port`.

    `project` is there from the start: None means what PENSTOCK_PROJECT says.
    """

    def __init__(self, home: Path, port: int, mongodb_uri: str | None = None, project: str | None = None) -> None:
        self.home = home.absolute()
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.port = port
        self.project = project
        self.stack = Stack(self.home, mongodb_uri=mongodb_uri)
        self.edge = Edge(self.home / "envoy")
        self._envoy: EnvoyServer | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, progress: Callable[[str], None] = lambda text: None) -> None:
        """Start or adopt everything; returns when requests are answered through the edge.

        Raises FailedPrecondition if the port is taken or the home is no place for secrets, before anything is started.
        """
        check_port(self.home, self.port)
        keep_free(self.port)
        prepare_home(self.home)
        progress("starting NATS and the database")
        replace_text(self.home / "url", self.url + "\n")
        await self.stack.start()
        for service in SERVICES:
            self.stack.service_credentials(service, publish=_ALSO_PUBLISHES.get(service, ()))
        progress("starting the services")
        await self.start_services()
        progress("starting the edge")
        await self.start_envoy()
        if self.edge.serving():
            progress("starting the models that were served")
            await self._endpoints_answer()

    def supervise(self, supervisor: Supervisor) -> None:
        """Have every part restarted when it dies, and the services when they hang."""
        self.stack.supervise(supervisor)
        supervisor.watch(PROCESS, self.start_services, Hung(self._services_answer))
        supervisor.watch(ENVOY, self.start_envoy)

    async def start_services(self) -> ManagedProcess:
        """Adopt the services' process or start it; returns when it answers calls."""
        process = ManagedProcess.ensure(self.home, PROCESS, self._program)
        await wait_ready(process, lambda: self._services_ready(process), timeout=60, interval=0.03)
        if self._envoy is not None:
            await asyncio.to_thread(self.edge.move_services, self._addresses())  # somebody may have taken their port
        return process

    async def _services_answer(self) -> bool:
        record = read_record(self.home, PROCESS)
        return record is None or await answers(int(record[1]["port"]))

    async def _endpoints_answer(self) -> None:
        """Wait for the endpoints of an earlier start, but no longer than a while: one must not hold up the others."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDPOINTS_WITHIN):
                while not await self._all_answer():  # noqa: ASYNC110 (other processes)
                    await asyncio.sleep(0.05)

    async def _all_answer(self) -> bool:
        # Read anew each time: the serving service suspends them, and may start one on another port.
        found = self.edge.serving()
        ports = [port for ports in found.values() for port in ports]
        ready = await asyncio.gather(*(http_ok(port, "/v2/health/ready") for port in ports))
        return all(found.values()) and all(ready) and all([await self._is_applied(*key) for key in found])

    async def _is_applied(self, project: str, endpoint: str) -> bool:
        try:
            return await self.edge.generation(project, endpoint) >= self.edge.written_generation(project, endpoint)
        except Unavailable:
            return False

    async def start_envoy(self) -> ManagedProcess:
        """Write the edge's base configuration and adopt Envoy or start it."""
        admin = admin_port(self.home)
        await asyncio.to_thread(
            self.edge.write_base,
            port=self.port,
            admin_port=admin,
            jwks=Keys.open(self.home / "keys").jwks(),
            services=self._addresses(),
            descriptor_set=resources.files("penstock.api").joinpath("descriptors.binpb").read_bytes(),
        )
        self._envoy = EnvoyServer(self.home, self.edge.arguments(), self.port, admin)
        process = await self._envoy.start()
        await wait_ready(process, lambda: http_ok(self.port, "/healthz"), timeout=10)
        return process

    def _addresses(self) -> dict[str, str]:
        record = read_record(self.home, PROCESS)
        return dict.fromkeys((*SERVICES, "event"), f"127.0.0.1:{record[1]['port'] if record else 0}")

    async def stop(self, progress: Callable[[str], None] = lambda text: None) -> None:
        """End everything of this home, whoever started it. Idempotent."""
        progress("stopping the services")
        await self._stop(PROCESS, grace=15)
        progress("stopping jobs and model servers")
        await LocalExecutor(self.home / "jobs", (self.home / "objects").as_uri()).shutdown()
        tritons = [path.stem for path in (self.home / "run").glob("triton-*.json")]
        await asyncio.gather(*(self._stop_triton(name) for name in tritons))
        progress("stopping the edge, NATS and the database")
        await asyncio.gather(*(self._stop(name, grace=10) for name in (ENVOY, "nats", "mongodb")))

    def status(self) -> list[dict[str, object]]:
        """Each process of this home with its pid and state, dead ones too; and where Prometheus finds its figures."""
        parts: list[dict[str, object]] = []
        for path in sorted((self.home / "run").glob("*.json")):
            found = read_record(self.home, path.stem)
            if found is not None:
                identity, facts = found
                alive = identity.alive()
                figures = [f"127.0.0.1:{facts[key]}{page}" for key, page in _FIGURES if key in facts]
                part: dict[str, object] = {
                    "name": path.stem,
                    "running": alive,
                    "pid": identity.pid if alive else None,
                    **facts,
                }
                parts.append(part | ({"metrics": figures[0]} if figures else {}))
        return parts

    async def _stop(self, name: str, grace: float) -> None:
        process = ManagedProcess.adopt(self.home, name)
        if process is not None:
            await asyncio.to_thread(process.stop, grace)

    async def _stop_triton(self, name: str) -> None:
        process = ManagedProcess.recorded(self.home, name)
        if process is not None:
            await asyncio.to_thread(process.stop, 3)
            sweep(process)

    def _program(self) -> Program:
        ready = self.home / "run" / "services.ready"
        ready.unlink(missing_ok=True)
        port, metrics = choose_port(self.home, PROCESS, None), choose_port(self.home, PROCESS, None, "metrics_port")
        argv = [
            sys.executable, "-m", "services", "--home", str(self.home), "--listen", f"127.0.0.1:{port}",
            "--metrics", f"127.0.0.1:{metrics}", "--ready-file", str(ready),
        ]  # fmt: skip
        env = {
            **inherited(_PASSED_ON),
            **({"PENSTOCK_PROJECT": self.project} if self.project else {}),
            "PENSTOCK_MONGODB_URI": self.stack.mongodb_uri,
            "PENSTOCK_NATS_URL": self.stack.nats_url,
            "PENSTOCK_URL": self.url,
        }
        return Program(PROCESS, argv, env=env, facts={"port": port, "metrics_port": metrics})

    async def _services_ready(self, process: ManagedProcess) -> bool:
        try:
            facts = json.loads((self.home / "run" / "services.ready").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return False
        return bool(facts["pid"] == process.identity.pid)
